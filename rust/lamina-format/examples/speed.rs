//! Speed of the codec, least time of many blocks.
use lamina_format::DType;
use lamina_format::checksum::PIECE;
use lamina_format::codec::Coder;
use lamina_format::record::Codec;
use std::time::Instant;
fn main() {
    let mut state = 1u64;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as f32 + 0.5) / (1u64 << 31) as f32
    };
    let mut normal = move || 0.02 * (-2.0 * uniform().ln()).sqrt() * (std::f32::consts::TAU * uniform()).cos();
    let n = 16 * PIECE / 4;
    let f: Vec<f32> = (0..n).map(|_| normal()).collect();
    let g: Vec<f32> = f.iter().map(|x| x + 0.05 * normal()).collect();
    let f32b = |v: &Vec<f32>| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let bf = |v: &Vec<f32>| v.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect::<Vec<u8>>();
    for (dtype, raw, base) in [(DType::Bf16, bf(&g), bf(&f)), (DType::F32, f32b(&g), f32b(&f))] {
        for delta in [false, true] {
            let mut coder = Coder::default();
            let (mut te, mut td, mut size) = (0.0, 0.0, 0);
            let blocks = raw.len() / PIECE;
            for b in 0..blocks {
                let (x, y) = (&raw[b * PIECE..][..PIECE], delta.then(|| &base[b * PIECE..][..PIECE]));
                let (mut be, mut bd) = (f64::MAX, f64::MAX);
                let mut out = Vec::new();
                let mut back = vec![0; PIECE];
                for _ in 0..40 {
                    out.clear();
                    let t = Instant::now();
                    coder.encode(dtype, x, y, &mut out).unwrap();
                    be = be.min(t.elapsed().as_secs_f64());
                    let t = Instant::now();
                    coder.decode(if delta { Codec::Delta } else { Codec::Planes }, dtype, &out, y, &mut back).unwrap();
                    bd = bd.min(t.elapsed().as_secs_f64());
                }
                assert!(back == x);
                te += be;
                td += bd;
                size += out.len();
            }
            let gb = raw.len() as f64 / 1e9;
            println!(
                "{} delta {delta}: encode {:.2} GB/s decode {:.2} GB/s ratio {:.4}",
                dtype.name(),
                gb / te,
                gb / td,
                raw.len() as f64 / size as f64
            );
        }
    }
}

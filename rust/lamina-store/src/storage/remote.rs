//! Which file systems are reached over a network: mapping a file there may kill the process when the far side changes it.

/// Magic numbers, as `statfs` tells them.
const REMOTE: [u64; 19] = [
    0x6969,      // NFS
    0x517B,      // SMB
    0xFF53_4D42, // CIFS
    0xFE53_4D42, // SMB 2 and 3
    0x6573_5546, // FUSE
    0x0BD0_0BD0, // Lustre
    0x00C3_6400, // Ceph
    0x4750_4653, // GPFS
    0x0102_1997, // 9p
    0x5346_414F, // AFS
    0x6B41_4653, // kAFS
    0x7375_7245, // Coda
    0x564C,      // NCP
    0x7461_636F, // OCFS2
    0x0116_1970, // GFS2
    0x1983_0326, // BeeGFS
    0xAAD7_AAEA, // PanFS
    0x2003_0528, // OrangeFS
    0x786F_4256, // VirtualBox's shared folders
];

/// Whether the file lies on such a file system; one that does not say what it is counts as one.
#[cfg(target_os = "linux")]
pub fn is_remote(file: &std::fs::File) -> bool {
    rustix::fs::fstatfs(file).map_or(true, |found| has_remote_magic(found.f_type as u64))
}

/// What another operating system says is not known here, so nothing is mapped there unless it was asked for.
#[cfg(not(target_os = "linux"))]
pub fn is_remote(_: &std::fs::File) -> bool {
    true
}

#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
fn has_remote_magic(magic: u64) -> bool {
    // on some machines the field is a signed 32-bit number
    REMOTE.contains(&(magic & 0xFFFF_FFFF))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_magic() {
        assert!(has_remote_magic(0x6969) && has_remote_magic(0xFF53_4D42) && has_remote_magic(0xFFFF_FFFF_FF53_4D42));
        assert!(!has_remote_magic(0xEF53), "ext4");
        assert!(!has_remote_magic(0x5846_5342), "xfs");
    }
}

//! Which features of sparse codes are wanted, and where each comes out.

use lamina_format::{Error, ErrorKind, Result};

/// Features below this are looked up in a table as long as the greatest of them; where there are greater ones, each is
/// searched for among those that are wanted.
const TABLE: i64 = 1 << 20;

/// Features that are wanted, in an order.
pub struct Features {
    places: Places,
    count: usize,
}

enum Places {
    /// Each stands at its number.
    All,
    /// By feature; `u32::MAX` stands for nowhere.
    Table(Vec<u32>),
    /// Feature and place, ascending.
    Sorted(Vec<(u32, u32)>),
}

impl Features {
    /// All of so many.
    pub fn all(width: u64) -> Self {
        Self { places: Places::All, count: width as usize }
    }

    /// These, each once, in this order.
    pub fn new(features: &[i64], width: u64) -> Result<Self> {
        let wrong = |feature: i64| {
            let text = format!("feature {feature} is chosen twice, or is none of {width}");
            Error::new(ErrorKind::Outside, text)
        };
        if let Some(&beyond) = features.iter().find(|&&feature| !(0..width as i64).contains(&feature)) {
            return Err(wrong(beyond));
        }
        let greatest = features.iter().copied().max().unwrap_or(-1);
        let places = if greatest < TABLE {
            let mut places = vec![u32::MAX; (greatest + 1) as usize];
            for (place, &feature) in features.iter().enumerate() {
                if std::mem::replace(&mut places[feature as usize], place as u32) != u32::MAX {
                    return Err(wrong(feature));
                }
            }
            Places::Table(places)
        } else {
            let mut places: Vec<_> = features.iter().map(|&feature| feature as u32).zip(0..).collect();
            places.sort_unstable();
            if let Some(twice) = places.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                return Err(wrong(twice[0].0.into()));
            }
            Places::Sorted(places)
        };
        Ok(Self { places, count: features.len() })
    }

    /// How many.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.count
    }

    /// A byte a feature, 0 for those that are not wanted: what looks at many asks it sooner than for their places. None where it
    /// would be long.
    pub fn mask(&self) -> Option<Vec<u8>> {
        match &self.places {
            Places::Table(places) => Some(places.iter().map(|&place| u8::from(place != u32::MAX)).collect()),
            _ => None,
        }
    }

    /// Where a feature comes out; None if it is not wanted.
    #[inline]
    pub fn place(&self, feature: u32) -> Option<usize> {
        let place = match &self.places {
            Places::All => feature,
            Places::Table(places) => *places.get(feature as usize)?,
            Places::Sorted(places) => places[places.binary_search_by_key(&feature, |place| place.0).ok()?].1,
        };
        (place != u32::MAX).then_some(place as usize)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn features_are_found_where_they_were_chosen() {
        for features in [&[][..], &[7, 0, 40_000], &[7, 0, i64::from(u32::MAX) / 2 - 1, 1 << 20]] {
            let width = 1 << 31;
            let chosen = Features::new(features, width).unwrap();
            assert_eq!(chosen.len(), features.len());
            for feature in [0, 1, 7, 8, 39_999, 40_000, 1 << 20, (1 << 20) + 1, i32::MAX as u32 - 1, u32::MAX] {
                let wanted = features.iter().position(|&other| other == i64::from(feature));
                assert_eq!(chosen.place(feature), wanted, "{feature} of {features:?}");
                let told = chosen.mask().map(|mask| mask.get(feature as usize).is_some_and(|&byte| byte == 1));
                assert!(told.is_none_or(|told| told == wanted.is_some()), "{feature} of {features:?}");
            }
            let greatest = features.last().copied().unwrap_or(3);
            for wrong in [[greatest, greatest], [-1, 5], [5, width as i64]] {
                assert_eq!(Features::new(&wrong, width).err().unwrap().kind, ErrorKind::Outside);
            }
        }
        let all = Features::all(1 << 31);
        assert_eq!((all.len(), all.place(i32::MAX as u32)), (1 << 31, Some(i32::MAX as usize)));
    }
}

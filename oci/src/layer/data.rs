//! Where the bytes of a file are: stretches of some source, with holes between them.

/// A stretch of a file's bytes that lies in one piece at `source`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent<S> {
    /// Offset in the file.
    pub logical: u64,
    /// Bytes; never zero.
    pub len: u64,
    /// Where the first of them is.
    pub source: S,
}

impl<S> Extent<S> {
    /// Offset in the file of the first byte behind it.
    pub fn end(&self) -> u64 {
        self.logical + self.len
    }
}

/// The content of a regular file.
///
/// Invariant: extents are sorted, do not overlap, and end within `size`. What none covers is zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data<S> {
    size: u64,
    extents: Vec<Extent<S>>,
}

impl<S> Data<S> {
    /// A file whose bytes lie in one piece.
    pub fn contiguous(size: u64, source: S) -> Self {
        let extents = if size == 0 { Vec::new() } else { vec![Extent { logical: 0, len: size, source }] };
        Self { size, extents }
    }

    /// A file made of pieces; none when they break the invariant. Empty pieces are left out.
    pub fn sparse(size: u64, mut extents: Vec<Extent<S>>) -> Option<Self> {
        extents.retain(|e| e.len != 0);
        let mut end = 0;
        for extent in &extents {
            if extent.logical < end {
                return None;
            }
            end = extent.logical.checked_add(extent.len)?;
        }
        (end <= size).then_some(Self { size, extents })
    }

    /// Bytes of the file, holes included.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The pieces that are not holes, in order.
    pub fn extents(&self) -> &[Extent<S>] {
        &self.extents
    }

    /// The same file with its sources renamed.
    pub fn map<T>(self, mut f: impl FnMut(S) -> T) -> Data<T> {
        let extents = self.extents.into_iter();
        let extents = extents.map(|e| Extent { logical: e.logical, len: e.len, source: f(e.source) }).collect();
        Data { size: self.size, extents }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_must_be_in_order_and_inside() {
        let piece = |logical, len| Extent { logical, len, source: () };
        assert_eq!(Data::sparse(9, vec![piece(0, 4), piece(4, 0), piece(6, 3)]).unwrap().extents().len(), 2);
        assert!(Data::sparse(9, vec![piece(0, 4), piece(3, 1)]).is_none());
        assert!(Data::sparse(9, vec![piece(6, 4)]).is_none());
        assert!(Data::sparse(9, vec![piece(u64::MAX, 4)]).is_none());
    }
}

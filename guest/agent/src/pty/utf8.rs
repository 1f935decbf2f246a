//! Where output may be cut without splitting a character.

/// The length of the longest character of UTF-8, less one: what may be missing its end.
const MAX_INCOMPLETE: usize = 3;

/// How many bytes at the end are the beginning of a character whose rest is still to come. 0 when the bytes end with a whole character,
/// or with something that no further byte can make one.
pub fn incomplete_tail(bytes: &[u8]) -> usize {
    for length in 1..=bytes.len().min(MAX_INCOMPLETE) {
        let tail = &bytes[bytes.len() - length..];
        let is_continuation = tail[0] & 0b1100_0000 == 0b1000_0000;
        if is_continuation {
            continue;
        }
        let waits =
            std::str::from_utf8(tail).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none());
        return if waits { length } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_can_still_become_a_character_is_incomplete() {
        let cases: [(&[u8], usize); 14] = [
            (b"", 0),
            (b"ab", 0),
            ("é".as_bytes(), 0),
            (b"a\xc3", 1),
            (b"\xe2\x82", 2),
            (b"\xf0\x9f\x98", 3),
            ("😀".as_bytes(), 0),
            // No character begins so: overlong, surrogate, beyond U+10FFFF, never used.
            (b"\xc0", 0),
            (b"\xe0\x80", 0),
            (b"\xed\xa0", 0),
            (b"\xf4\x90", 0),
            (b"\xff", 0),
            // Continuations without a beginning.
            (b"\x80\x80\x80\x80", 0),
            (b"a\x80", 0),
        ];
        for (bytes, expected) in cases {
            assert_eq!(incomplete_tail(bytes), expected, "{bytes:x?}");
        }
    }

    /// What a viewer does: everything before the incomplete tail goes, the tail waits for more.
    fn frames(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut frames, mut waiting) = (vec![], vec![]);
        for piece in pieces {
            waiting.extend_from_slice(piece);
            let rest = waiting.split_off(waiting.len() - incomplete_tail(&waiting));
            frames.push(std::mem::replace(&mut waiting, rest));
        }
        frames.push(waiting);
        frames
    }

    fn cut<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.sort_unstable();
        let mut pieces = vec![];
        let mut begin = 0;
        for end in at.into_iter().chain([bytes.len()]) {
            pieces.push(&bytes[begin..end]);
            begin = end;
        }
        pieces
    }

    proptest! {
        #[test]
        fn no_frame_of_any_text_cut_anywhere_splits_a_character(
            text in "[a-z\u{e9}\u{4e2d}\u{1f600}\u{7ff}\u{800}\u{ffff}\u{10ffff}]{0,60}|.{0,60}",
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let frames = frames(&cut(text.as_bytes(), &cuts));
            for frame in &frames {
                prop_assert!(std::str::from_utf8(frame).is_ok(), "{:x?}", frame);
            }
            prop_assert_eq!(frames.concat(), text.as_bytes());
            prop_assert!(frames.last().is_some_and(Vec::is_empty), "a whole text leaves nothing waiting");
        }

        #[test]
        fn any_bytes_pass_unchanged_and_at_most_three_wait(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let frames = frames(&cut(&bytes, &cuts));
            prop_assert!(frames.last().is_some_and(|waiting| waiting.len() <= MAX_INCOMPLETE));
            prop_assert_eq!(frames.concat(), bytes);
        }
    }
}

//! One line of JSON (RFC 8259) from a report.

use alloc::string::String;
use serde::Serialize;

/// The report as JSON, without a line end.
pub(crate) fn line(report: &impl Serialize) -> String {
    serde_json::to_string(report).expect("reports hold only what JSON can say")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Serialize)]
    struct Sample<'a> {
        shown: &'a str,
        group: Option<&'a str>,
        start: u64,
    }

    #[test]
    fn integers_are_exact_and_absent_values_null() {
        let sample = Sample { shown: "a \"word\"", group: None, start: u64::MAX };
        assert_eq!(line(&sample), r#"{"shown":"a \"word\"","group":null,"start":18446744073709551615}"#);
    }

    proptest! {
        #[test]
        fn any_text_is_one_printable_line_that_reads_back(text: String) {
            let written = line(&text);
            prop_assert!(!written.chars().any(|c| c < ' '));
            prop_assert_eq!(serde_json::from_str::<String>(&written).expect("valid"), text);
        }
    }
}

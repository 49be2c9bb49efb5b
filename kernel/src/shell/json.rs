//! One line of JSON (RFC 8259) from a report.

use alloc::string::String;
use serde::{Serialize, Serializer};

/// The report as JSON, without a line end.
pub(crate) fn line(report: &impl Serialize) -> String {
    serde_json::to_string(report).expect("reports hold only what JSON can say")
}

/// Serialises anything by how it is displayed.
pub(crate) fn text<T: core::fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Serialize)]
    struct Sample<'a> {
        #[serde(serialize_with = "text")]
        shown: core::net::Ipv4Addr,
        group: Option<&'a str>,
        start: u64,
    }

    #[test]
    fn integers_are_exact_and_absent_values_null() {
        let sample = Sample { shown: [1, 2, 3, 4].into(), group: None, start: u64::MAX };
        assert_eq!(line(&sample), r#"{"shown":"1.2.3.4","group":null,"start":18446744073709551615}"#);
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

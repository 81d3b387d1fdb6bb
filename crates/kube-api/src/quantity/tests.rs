use proptest::prelude::*;

use super::*;

fn quantity(text: &str) -> Quantity {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_suffix_counts_what_kubernetes_says() {
    let suffixes = [
        ("n", 1),
        ("u", 1_000),
        ("m", 1_000_000),
        ("", 1_000_000_000),
        ("k", 10_i128.pow(12)),
        ("M", 10_i128.pow(15)),
        ("G", 10_i128.pow(18)),
        ("T", 10_i128.pow(21)),
        ("P", 10_i128.pow(24)),
        ("E", 10_i128.pow(27)),
        ("Ki", (1 << 10) * 1_000_000_000),
        ("Mi", (1 << 20) * 1_000_000_000),
        ("Gi", (1 << 30) * 1_000_000_000),
        ("Ti", (1 << 40) * 1_000_000_000),
        ("Pi", (1 << 50) * 1_000_000_000),
        ("Ei", (1 << 60) * 1_000_000_000),
        ("e3", 10_i128.pow(12)),
        ("E3", 10_i128.pow(12)),
        ("e+3", 10_i128.pow(12)),
        ("e-3", 1_000_000),
    ];
    for (suffix, nano) in suffixes {
        assert_eq!(quantity(&format!("1{suffix}")).nano(), nano, "{suffix}");
    }
}

#[test]
fn fractions_are_exact_and_round_up_below_a_billionth() {
    assert_eq!(quantity("0.1").milli(), 100);
    assert_eq!(quantity("1.5Gi").value(), 1_610_612_736);
    assert_eq!(quantity("0.1Ki").nano(), 102_400_000_000);
    assert_eq!(quantity(".5"), quantity("500m"));
    assert_eq!(quantity("5."), quantity("5"));
    assert_eq!(quantity("0.0000000001").nano(), 1);
    assert_eq!(quantity("1e-400").nano(), 1);
    assert_eq!(quantity("-0.0000000001").nano(), -1);
    assert_eq!(quantity("100m").value(), 1);
    assert_eq!(quantity("1u").milli(), 1);
    assert_eq!(quantity("-1500m").value(), -1);
    assert_eq!(quantity("0e999999999"), Quantity::ZERO);
}

#[test]
fn what_is_too_large_is_capped_as_in_kubernetes() {
    for text in [
        "9223372036854775807",
        "8Ei",
        "100E",
        "1e30",
        "1e999999999",
        "9e2147483647",
    ] {
        assert_eq!(quantity(text).value(), i64::MAX, "{text}");
    }
    assert_eq!(quantity("-8Ei").value(), -i64::MAX);
    assert_eq!(quantity("8E").milli(), i64::MAX);
    // 38 digits fit the mantissa; the shift of Ei does not fit behind them.
    assert_eq!(quantity(&format!("{}Ei", "9".repeat(38))).value(), i64::MAX);
    // The largest fraction with the largest shift below the cap.
    assert_eq!(quantity("7.999999999999999999Ei").value(), 9_223_372_036_854_775_807);
}

#[test]
fn garbage_is_refused_and_told_what_to_write() {
    for (text, hint) in [
        ("", "starts with a number"),
        ("-", "starts with a number"),
        (".", "starts with a number"),
        ("1.2.3", "starts with a number"),
        ("Gi", "starts with a number"),
        (" 1", "starts with a number"),
        ("1 ", "suffix"),
        ("1K", "suffix"),
        ("1gi", "suffix"),
        ("1KiB", "suffix"),
        ("1é", "suffix"),
        ("1e", "exponent"),
        ("1e1.5", "exponent"),
        ("1e99999999999", "exponent"),
        ("0.1234567890123456789", "more digits"),
    ] {
        let error = text.parse::<Quantity>().unwrap_err();
        assert!(error.to_string().contains(hint), "{text:?}: {error}");
        assert_eq!(error.reason(), "InvalidQuantity");
    }
    let error = "x".repeat(1000).parse::<Quantity>().unwrap_err().to_string();
    assert!(error.len() < 200, "{error}");
}

#[test]
fn json_may_hold_a_string_or_a_number() {
    let read = |json: &str| serde_json::from_str::<Quantity>(json);
    assert_eq!(read("\"16Gi\"").unwrap().value(), 16 << 30);
    assert_eq!(read("8").unwrap(), Quantity::whole(8));
    assert_eq!(read("0.5").unwrap().milli(), 500);
    assert_eq!(read("-1").unwrap(), Quantity::whole(-1));
    assert_eq!(read("18446744073709551615").unwrap().value(), i64::MAX);
    assert!(read("\"a\"").unwrap_err().to_string().contains("not valid"));
    assert!(read("{}").is_err());
}

proptest! {
    #[test]
    fn decimals_count_as_long_hand_does(units in 0_u64..=u64::MAX / 2, thousandths in 0_u32..1000) {
        let long = i128::from(units) * 1_000_000_000 + i128::from(thousandths) * 1_000_000;
        let text = format!("{units}.{thousandths:03}");
        prop_assert_eq!(quantity(&text).nano(), long.min(CAP.cast_signed()));
        prop_assert_eq!(quantity(&format!("-{text}")).nano(), -long.min(CAP.cast_signed()));
    }

    #[test]
    fn the_same_amount_in_other_words_is_equal(amount in 0_i64..1_000_000_000) {
        prop_assert_eq!(quantity(&format!("{amount}Ki")), Quantity::whole(amount << 10));
        prop_assert_eq!(quantity(&format!("{amount}k")), quantity(&format!("{amount}e3")));
        prop_assert_eq!(quantity(&format!("{amount}m")), quantity(&format!("{amount}000u")));
    }

    #[test]
    fn what_is_written_is_read_back(nano in -CAP.cast_signed()..=CAP.cast_signed()) {
        let it = Quantity { nano };
        prop_assert_eq!(quantity(&it.to_string()), it);
    }

    #[test]
    fn no_text_panics(text in "[-+]?[0-9.]{0,50}[a-zA-Z+-]{0,3}[0-9]{0,12}|\\PC{0,20}") {
        if let Ok(it) = text.parse::<Quantity>() {
            prop_assert!(it.nano().unsigned_abs() <= CAP);
            prop_assert_eq!(quantity(&it.to_string()), it);
        }
    }

    #[test]
    fn rounding_is_up_and_by_less_than_one(nano in -CAP.cast_signed()..=CAP.cast_signed()) {
        let up = i128::from(Quantity { nano }.value()) * NANO.cast_signed();
        prop_assert!(up >= nano && up - nano < NANO.cast_signed());
    }
}

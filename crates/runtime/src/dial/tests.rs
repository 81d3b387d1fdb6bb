use super::*;

#[test]
fn targets_round_trip() {
    for text in [
        "http://127.0.0.1:9440",
        "https://node-1.example:9440",
        "http://[::1]:9440",
        "unix:///run/b.sock",
    ] {
        assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
    }
    assert_eq!(
        "unix:/run/b.sock".parse::<Target>().unwrap(),
        Target::Unix("/run/b.sock".into())
    );
    assert_eq!("http://a:1/".parse::<Target>().unwrap().to_string(), "http://a:1");
}

#[test]
fn mistakes_are_refused_with_the_forms_that_work() {
    for text in [
        "",
        "127.0.0.1:9440",
        "node",
        "ftp://a:1",
        "unix:run/b.sock",
        "http://a:1/path",
        "https://a:1/?q=1",
    ] {
        let error = text.parse::<Target>().unwrap_err().to_string();
        assert!(
            error.contains("unix:///PATH") && error.contains("https://HOST:PORT"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn https_without_an_authority_to_trust_is_an_error() {
    let error = channel(&"https://127.0.0.1:1".parse().unwrap(), None).unwrap_err();
    assert_eq!(error.reason(), "NoAuthority");
    assert!(error.to_string().starts_with("https://127.0.0.1:1 needs"), "{error}");
}

//! What templates render to: expectations are what Go's text/template and consul-template give.

use serde_json::json;

use super::*;

fn query(path: &str) -> Query {
    Query {
        path: path.to_owned(),
        parameters: BTreeMap::new(),
    }
}

fn render(text: &str) -> Result<String, TemplateError> {
    let creds = json!({"LeaseDuration": 0, "Data": {"data": {"key": "SU<A>", "public_key": "UA", "n": 7, "list": ["a", "b"]},
        "metadata": {"version": 3}}});
    let signed = json!({"LeaseDuration": 60, "Data": {"token": "a.b.c"}});
    let secrets = BTreeMap::from([(query("kv/data/creds"), &creds), (query("sis/sign/nvca"), &signed)]);
    Template::parse(text, "{{", "}}")?.render(&secrets, false)
}

#[test]
fn the_agent_s_secrets_file_is_rendered() {
    let text = r#"{"kv":{"nats":{"api-auth":{
{{- with secret "/kv/data/creds" -}}
"user":"{{ .Data.data.public_key }}","user-seed":"{{ .Data.data.key }}"
{{- end -}}
}},"tokens":{"icms":"{{ with secret "sis/sign/nvca" }}{{ .Data.token }}{{ end }}"}}}"#;
    let expected = r#"{"kv":{"nats":{"api-auth":{"user":"UA","user-seed":"SU<A>"}},"tokens":{"icms":"a.b.c"}}}"#;
    assert_eq!(render(text).unwrap(), expected);
    let queries = Template::parse(text, "{{", "}}").unwrap().queries();
    assert_eq!(queries, [query("kv/data/creds"), query("sis/sign/nvca")]);
}

#[test]
fn each_construct_gives_what_go_gives() {
    let with = |body: &str| render(&format!("{{{{ with secret \"kv/data/creds\" }}}}{body}{{{{ end }}}}")).unwrap();
    for (body, expected) in [
        (
            "{{ range $k, $v := .Data.data }}{{ $k }}={{ $v }};{{ end }}",
            "key=SU<A>;list=[a b];n=7;public_key=UA;",
        ),
        ("{{ range .Data.data.list }}<{{ . }}>{{ end }}", "<a><b>"),
        (
            "{{ range $i, $v := .Data.data.list }}{{ $i }}{{ $v }}{{ else }}none{{ end }}",
            "0a1b",
        ),
        ("{{ .Data.data.list | toJSON }}", r#"["a","b"]"#),
        ("{{ .Data.data.key | toJSON }}", r#""SU\u003cA\u003e""#),
        ("{{ .Data.metadata }}", "map[version:3]"),
        ("{{ .Data.data.missing }}", "<no value>"),
        ("{{ if .Data.data.missing }}yes{{ else }}no{{ end }}", "no"),
        (
            "{{ if eq .Data.data.n 7 }}seven{{ else if true }}other{{ end }}",
            "seven",
        ),
        (
            "{{ if ne .Data.data.n 7 }}x{{ else if .Data.data.n }}else if{{ end }}",
            "else if",
        ),
        ("{{ index .Data.data \"key\" | toLower | base64Encode }}", "c3U8YT4="),
        ("{{ base64Decode \"YQ==\" }}{{/* nothing */}}", "a"),
        ("{{ $x := .Data.data }}{{ $x.n }}{{ len $x.list }}", "72"),
        ("{{ with $d := .Data.data }}{{ $d.key }}{{ end }}", "SU<A>"),
        ("a {{- /* say \"}} */ -}} b", "ab"),
        ("{{ with .Data.data.missing }}x{{ else }}-{{ end }}", "-"),
        ("a  {{- \" b \" | trimSpace -}}  c", "abc"),
        (
            "{{ not (eq .Data.data.n 1) }} {{ and true .Data.data.n }} {{ or \"\" `r` }}",
            "true 7 r",
        ),
    ] {
        assert_eq!(with(body), expected, "{body}");
    }
}

#[test]
fn the_injector_s_default_templates_are_rendered() {
    let map = "{{ with secret \"sis/sign/nvca\" }}{{ range $k, $v := .Data }}{{ $k }}: {{ $v }}\n{{ end }}{{ end }}";
    assert_eq!(render(map).unwrap(), "token: a.b.c\n");
    let json = "{{ with secret \"sis/sign/nvca\" }}{{ .Data | toJSON }}\n{{ end }}";
    assert_eq!(render(json).unwrap(), "{\"token\":\"a.b.c\"}\n");
}

#[test]
fn other_delimiters_and_parameters_are_understood() {
    let template = Template::parse(
        r#"{{x}} [[ with secret "pki/issue/x" "ttl=1h" ]][[ .Data.a ]][[ end ]]"#,
        "[[",
        "]]",
    )
    .unwrap();
    let queries = template.queries();
    assert_eq!(
        queries[0].parameters,
        BTreeMap::from([("ttl".to_owned(), "1h".to_owned())])
    );
    let secret = json!({"Data": {"a": 1}});
    let secrets = BTreeMap::from([(queries[0].clone(), &secret)]);
    assert_eq!(template.render(&secrets, false).unwrap(), "{{x}} 1");
}

#[test]
fn a_bad_template_is_refused_and_a_missing_key_is_told_where_it_shall_be() {
    for (text, told) in [
        ("{{ with secret \"a\" }}", "not closed"),
        ("{{ .Data", "does not end"),
        ("{{ end }}", "unexpected \"end\""),
        ("{{ file \"/etc/passwd\" }}", "no function \"file\""),
        ("{{ secret .Data.path }}", "literal"),
        ("{{ with secret \"a\" }}{{ else }}{{ else }}{{ end }}", "else"),
        ("{{ with secret \"a\" }}{{ else maybe }}{{ end }}", "else"),
    ] {
        let error = Template::parse(text, "{{", "}}").unwrap_err().to_string();
        assert!(error.contains(told), "{text}: {error}");
    }
    assert_eq!(render("{{ $x }}"), Err(TemplateError::NoVariable("x".to_owned())));
    let deep = render("{{ with secret \"sis/sign/nvca\" }}{{ .Data.data.key }}{{ end }}");
    assert!(matches!(deep, Err(TemplateError::MissingKey(_))), "{deep:?}");
    let secret = json!({"Data": {}});
    let secrets = BTreeMap::from([(query("a"), &secret)]);
    let strict = Template::parse("{{ with secret \"a\" }}{{ .Data.x }}{{ end }}", "{{", "}}").unwrap();
    assert!(strict.render(&secrets, true).is_err());
    assert_eq!(
        strict.render(&BTreeMap::new(), true),
        Err(TemplateError::NoSecret("a".to_owned()))
    );
}

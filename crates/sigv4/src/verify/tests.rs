// SPDX-License-Identifier: Apache-2.0
//! Signatures made by others: AWS's published example and botocore's, and what becomes of them when anything changes.

use http::Request;

use super::*;
use crate::sign::Identity;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
/// 2015-08-30T12:36:00Z, the moment of all AWS examples.
const MOMENT: u64 = 1_440_938_160;

fn keys(more: &str) -> Keys {
    let text = format!(
        "{more}\n[[keys]]\naccess_key_id = \"AKIDEXAMPLE\"\nsecret_access_key = \"{SECRET}\"\n"
    );
    Keys::parse(&text, "000000000000").expect("sound")
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn scope(service: &str) -> Scope<'_> {
    Scope {
        service,
        region: "us-east-1",
    }
}

fn authorization(service: &str, headers: &str, signature: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/{service}/aws4_request, \
         SignedHeaders={headers}, Signature={signature}"
    )
}

/// `get-vanilla` of the test suite that AWS published.
fn vanilla() -> http::request::Builder {
    Request::get("/")
        .header("host", "example.amazonaws.com")
        .header("x-amz-date", "20150830T123600Z")
}

const VANILLA: &str = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";

fn check(
    request: http::request::Builder,
    body: &[u8],
    service: &str,
    now: u64,
) -> Result<Arc<Key>, Refusal> {
    let head = request.body(()).expect("a request").into_parts().0;
    Claim::read(&head, &keys(""), &scope(service), at(now))?.prove(Payload::Body(body))
}

fn botocore_put() -> http::request::Builder {
    let signature = "1a49c009099ce0eb119ed6a81ff9317a810e54755b8e5f62dd86d4a76ed8112d";
    Request::put("/v20190125/meshes/a%2Fb/virtualServices?meshOwner=111122223333&a=%20xy")
        .header("host", "mesh.local:8700")
        .header("content-type", "application/json")
        .header("x-amz-date", "20150830T123600Z")
        .header(
            "authorization",
            authorization("appmesh", "content-type;host;x-amz-date", signature),
        )
}

fn presigned(change: impl Fn(String) -> String) -> http::request::Builder {
    let uri = "/v20190125/tags?resourceArn=arn%3Aaws%3Aappmesh%3Aus-east-1%3A000000000000%3Amesh%2Fm&limit=5\
               &X-Amz-Algorithm=AWS4-HMAC-SHA256\
               &X-Amz-Credential=AKIDEXAMPLE%2F20150830%2Fus-east-1%2Fappmesh%2Faws4_request\
               &X-Amz-Date=20150830T123600Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host\
               &X-Amz-Signature=c6f508aee036d70330bbce1b1c252d838995b5a5abe64ac8b887c0a19d5239ec";
    Request::get(change(uri.to_owned())).header("host", "mesh.local:8700")
}

#[test]
fn signatures_of_aws_and_botocore_hold() {
    let signed = vanilla().header(
        "authorization",
        authorization("service", "host;x-amz-date", VANILLA),
    );
    let key = check(signed, b"", "service", MOMENT).expect("AWS's own");
    assert_eq!(key.id(), "AKIDEXAMPLE");
    check(botocore_put(), b"{\"x\":1}", "appmesh", MOMENT).expect("botocore's");
    check(presigned(|uri| uri), b"", "appmesh", MOMENT + 60).expect("botocore's, presigned");
}

#[test]
fn any_change_breaks_the_signature() {
    let broken = |outcome: Result<Arc<Key>, Refusal>| {
        let refusal = outcome.expect_err("changed");
        assert_eq!(refusal.name(), "InvalidSignatureException", "{refusal}");
    };
    broken(check(botocore_put(), b"{\"x\":2}", "appmesh", MOMENT));
    broken(check(
        botocore_put().method("DELETE"),
        b"{\"x\":1}",
        "appmesh",
        MOMENT,
    ));
    broken(check(
        botocore_put().uri("/v20190125/meshes/a/virtualServices"),
        b"{\"x\":1}",
        "appmesh",
        MOMENT,
    ));
    broken(check(
        presigned(|uri| uri.replace("limit=5", "limit=50")),
        b"",
        "appmesh",
        MOMENT,
    ));
    broken(check(
        presigned(|uri| uri.replace("Expires=60", "Expires=600")),
        b"",
        "appmesh",
        MOMENT,
    ));
    broken(check(
        presigned(|uri| uri + "&extra=1"),
        b"",
        "appmesh",
        MOMENT,
    ));
    broken(check(
        presigned(|uri| uri.replace("ec", "")),
        b"",
        "appmesh",
        MOMENT,
    ));
}

#[test]
fn a_signature_is_good_for_five_minutes_in_both_directions() {
    let outcome = |now| check(botocore_put(), b"{\"x\":1}", "appmesh", now);
    assert!(outcome(MOMENT + 300).is_ok() && outcome(MOMENT - 300).is_ok());
    let expired = outcome(MOMENT + 301).expect_err("late").to_string();
    assert!(
        expired.starts_with("Signature expired: 20150830T123600Z"),
        "{expired}"
    );
    let early = outcome(MOMENT - 301).expect_err("early").to_string();
    assert!(early.starts_with("Signature not yet current"), "{early}");
    assert!(check(presigned(|uri| uri), b"", "appmesh", MOMENT + 61).is_err());
}

#[test]
fn each_fault_has_the_name_aws_gives_it() {
    let name = |request, service| {
        check(request, b"", service, MOMENT)
            .expect_err("refused")
            .name()
    };
    let with = |value: &str| vanilla().header("authorization", value);
    let of = |key: &str| {
        authorization("service", "host;x-amz-date", VANILLA).replace("AKIDEXAMPLE", key)
    };
    assert_eq!(
        name(vanilla(), "service"),
        "MissingAuthenticationTokenException"
    );
    assert_eq!(
        name(with("Basic YTpi"), "service"),
        "IncompleteSignatureException"
    );
    assert_eq!(
        name(with("AWS4-HMAC-SHA256 Credential=x"), "service"),
        "IncompleteSignatureException"
    );
    assert_eq!(
        name(with(&of("AKIDOTHER")), "service"),
        "UnrecognizedClientException"
    );
    assert_eq!(
        name(with(&of("AKIDEXAMPLE")), "xray"),
        "InvalidSignatureException"
    );
    let twice = with(&of("AKIDEXAMPLE")).header("authorization", of("AKIDEXAMPLE"));
    assert_eq!(name(twice, "service"), "IncompleteSignatureException");
    let both = presigned(|uri| uri).header("authorization", of("AKIDEXAMPLE"));
    assert_eq!(name(both, "appmesh"), "IncompleteSignatureException");
}

#[test]
fn host_and_date_must_be_signed() {
    for headers in [
        "x-amz-date",
        "host",
        "Host;x-amz-date",
        "x-amz-date;host",
        "host;x-absent;x-amz-date",
        "",
    ] {
        let request = vanilla().header("authorization", authorization("service", headers, VANILLA));
        assert!(
            check(request, b"", "service", MOMENT).is_err(),
            "{headers:?}"
        );
    }
}

fn identity() -> Identity {
    Identity {
        access_key_id: "AKIDEXAMPLE".to_owned(),
        secret_access_key: SECRET.to_owned(),
        session_token: Some("token".to_owned()),
        region: "us-east-1".to_owned(),
        service: "appmesh",
    }
}

#[test]
fn what_we_sign_we_let_in_over_http_2_as_well() {
    let request = Request::put("https://mesh.local/v20190125/meshes?x=a%20b").body(());
    let (mut head, ()) = request.expect("a request").into_parts();
    identity().sign(&mut head, b"{}", at(MOMENT));
    let claim = |keys: &Keys| Claim::read(&head, keys, &scope("appmesh"), at(MOMENT));
    let tolerant = keys("");
    assert!(
        claim(&tolerant)
            .expect("recent")
            .prove(Payload::Body(b"{}"))
            .is_ok()
    );
    assert!(
        claim(&tolerant)
            .expect("recent")
            .prove(Payload::Body(b"{} "))
            .is_err()
    );
    let strict = keys("session_tokens = \"refused\"");
    assert_eq!(
        claim(&strict).expect_err("a token").name(),
        "UnrecognizedClientException"
    );
}

#[test]
fn an_unsigned_payload_is_taken_only_where_there_is_none() {
    let (mut head, ()) = Request::put("https://mesh.local/x")
        .body(())
        .expect("a request")
        .into_parts();
    let claim = |announced: &str, head: &mut Parts| {
        head.headers
            .insert("x-amz-content-sha256", announced.parse().expect("a value"));
        let covered = Covered {
            method: "PUT",
            uri: &head.uri,
            headers: &head.headers,
            signed: &["host", "x-amz-date"],
        };
        let key = canonical::signing_key(SECRET, "20150830", "us-east-1", "appmesh");
        let text = canonical::string_to_sign(
            "20150830T123600Z",
            "20150830/us-east-1/appmesh/aws4_request",
            &(covered.canonical() + announced),
        );
        let signature = hex::encode(hmac::sign(&key, text.as_bytes()));
        let value = authorization("appmesh", "host;x-amz-date", &signature);
        head.headers
            .insert("authorization", value.parse().expect("a value"));
        Claim::read(head, &keys(""), &scope("appmesh"), at(MOMENT)).expect("recent")
    };
    head.headers
        .insert("x-amz-date", "20150830T123600Z".parse().expect("a value"));
    assert!(claim(UNSIGNED, &mut head).prove(Payload::Body(b"")).is_ok());
    assert!(claim(UNSIGNED, &mut head).prove(Payload::Stream).is_ok());
    assert!(
        claim(UNSIGNED, &mut head)
            .prove(Payload::Body(b"{}"))
            .is_err()
    );
    let other = canonical::sha256(b"[]");
    assert!(
        claim(&other, &mut head)
            .prove(Payload::Body(b"{}"))
            .is_err()
    );
}

//! Values of `nsxt:` that have a form of their own.

use reqwest::Url;

/// `https://host[:port]` of a manager that was written with or without the scheme.
pub(super) fn manager(text: &str) -> Result<String, String> {
    let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let url = Url::parse(&full).map_err(|error| format!("{error}; write it as in `https://nsx.example.com`"))?;
    if url.scheme() != "https" {
        return Err("the password would cross the network in the clear; write `https://`".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a name or password does not stand here; write `username` and `passwordFile`".to_owned());
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err("write scheme, name and port only, as in `https://nsx.example.com`".to_owned());
    }
    Ok(url.origin().ascii_serialization())
}

/// The 32 bytes of a SHA-256 value in hexadecimal digits, with colons or without.
pub(super) fn hash_value(text: &str) -> Result<[u8; 32], String> {
    let digits: Vec<char> = text.chars().filter(|c| *c != ':').collect();
    if digits.len() == 40 {
        return Err("has 40 digits, which is SHA-1; write the SHA-256 value (64 digits)".to_owned());
    }
    let mut bytes = [0; 32];
    let values: Option<Vec<u8>> =
        digits.iter().map(|digit| digit.to_digit(16).and_then(|value| u8::try_from(value).ok())).collect();
    let values = values.filter(|values| values.len() == 64).ok_or_else(|| {
        format!(
            "has {} characters; write 64 hexadecimal digits, as `openssl x509 -noout -fingerprint -sha256` shows them",
            digits.len()
        )
    })?;
    for (byte, pair) in bytes.iter_mut().zip(values.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    Ok(bytes)
}

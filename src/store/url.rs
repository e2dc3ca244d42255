//! The part of a store's URL that may be secret.

/// Returns the length of `user:password@` at the beginning of `rest`, the part of a URL after `://`; 0 without a user.
///
/// An invalid password with an unescaped `/`, `?` or `@` must be hidden too: the user info ends at the last `@` that is not in
/// the value of an option.
pub fn user_info_len(rest: &str) -> usize {
    let end = |text: &str| text.rfind('@').map_or(0, |at| at + 1);
    match rest.split_once('?') {
        Some((place, options)) if has_options(options) && (place.contains('@') || !has_user(place)) => end(place),
        _ => end(rest),
    }
}

/// Returns true if the text, up to its last `@`, consists of options.
fn has_options(text: &str) -> bool {
    let before = text.rfind('@').map_or(text, |at| &text[..at]);
    let is_option = |option: &str| {
        option.split_once('=').is_some_and(|(name, _)| {
            (name == "w" || name.len() > 2) && name.bytes().all(|byte| byte.is_ascii_alphabetic())
        })
    };
    before.split('&').all(is_option)
}

/// Returns true if a colon is followed by something other than a port.
fn has_user(place: &str) -> bool {
    let hosts = place.split('/').next().unwrap_or_default();
    hosts.split(',').any(|host| {
        let port = host.rsplit_once(']').map_or(host, |(_, port)| port).split_once(':').map_or("", |(_, port)| port);
        !port.bytes().all(|byte| byte.is_ascii_digit())
    })
}

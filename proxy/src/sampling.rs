// SPDX-License-Identifier: Apache-2.0
//! Which traces that begin here are kept: rules by host, method and path, each with so many a second and a share of the
//! rest, as X-Ray's local rules say; above them a collector's ([`central`], fetched by [`poll`]). One sampler for all
//! workers. Read by `config`, asked by `layer::trace`.

mod central;
pub mod poll;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwapOption;
use serde_json::Value;

use self::central::CentralRules;

/// The rules in order; the last one takes every request.
#[derive(Debug)]
pub struct Sampler {
    rules: Vec<Rule>,
    /// A collector's rules, once some have come.
    central: ArcSwapOption<CentralRules>,
}

#[derive(Debug)]
struct Rule {
    host: String,
    method: String,
    path: String,
    fixed_target: u32,
    rate: f64,
    taken: Reservoir,
}

/// How many were taken in this second: the second in the upper half, the number in the lower.
#[derive(Debug, Default)]
struct Reservoir(AtomicU64);

/// What is asked, as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Host, with its port if it has one.
    pub host: &'a str,
    /// Method.
    pub method: &'a str,
    /// Path without query.
    pub path: &'a str,
}

impl Sampler {
    /// So many a second, and this share of the rest.
    pub fn new(fixed_target: u32, rate: f64) -> Sampler {
        let rule = Rule {
            host: "*".to_owned(),
            method: "*".to_owned(),
            path: "*".to_owned(),
            fixed_target,
            rate,
            taken: Reservoir::default(),
        };
        Sampler {
            rules: vec![rule],
            central: ArcSwapOption::empty(),
        }
    }

    /// A rule file of version 2. The error names the member.
    pub fn parse(json: &str) -> Result<Sampler, String> {
        let file: Value =
            serde_json::from_str(json).map_err(|error| format!("is no JSON: {error}"))?;
        if file["version"] != 2 {
            return Err(format!(
                "has version {}; rule files are of version 2",
                file["version"]
            ));
        }
        let listed = match &file["rules"] {
            Value::Null => &[][..],
            Value::Array(rules) => rules,
            _ => return Err("has rules that are no list".to_owned()),
        };
        let mut rules = Vec::with_capacity(listed.len() + 1);
        for (index, rule) in listed.iter().enumerate() {
            rules.push(Rule::parse(rule, &format!("rules[{index}]"), true)?);
        }
        rules.push(Rule::parse(&file["default"], "default", false)?);
        Ok(Sampler {
            rules,
            central: ArcSwapOption::empty(),
        })
    }

    /// Whether a trace that begins with this request is kept. `now_s` is the second it is; `draw` says yes to a share.
    pub fn keeps(&self, asked: Asked<'_>, now_s: u64, draw: impl FnOnce(f64) -> bool) -> bool {
        let mut draw = Some(draw);
        let mut draw = |share| draw.take().is_some_and(|draw| draw(share));
        if let Some(central) = self.central.load().as_ref()
            && let Some(kept) = central.keeps(asked, now_s, &mut draw)
        {
            return kept;
        }
        let rule = self.rules.iter().find(|rule| rule.matches(asked));
        rule.is_some_and(|rule| rule.taken.takes(rule.fixed_target, now_s) || draw(rule.rate))
    }

    /// The share of requests that no rule names.
    pub fn rate(&self) -> f64 {
        self.rules.last().map_or(0.0, |rule| rule.rate)
    }
}

impl Rule {
    fn parse(rule: &Value, at: &str, matches: bool) -> Result<Rule, String> {
        let Some(members) = rule.as_object() else {
            return Err(format!("needs {at}, an object with fixed_target and rate"));
        };
        let known = ["description", "fixed_target", "rate"];
        let conditions = ["host", "http_method", "url_path"];
        let is_known =
            |name: &str| known.contains(&name) || (matches && conditions.contains(&name));
        if let Some(name) = members.keys().find(|name| !is_known(name)) {
            return Err(format!(
                "has {at}.{name}, which rule files of version 2 do not know"
            ));
        }
        let text = |name: &str| match &rule[name] {
            Value::Null if !matches => Ok("*".to_owned()),
            Value::String(text) => Ok(text.clone()),
            _ => Err(format!("needs {at}.{name}, a pattern with * and ?")),
        };
        let target = rule["fixed_target"]
            .as_u64()
            .and_then(|target| u32::try_from(target).ok());
        let rate = rule["rate"]
            .as_f64()
            .filter(|rate| (0.0..=1.0).contains(rate));
        Ok(Rule {
            host: text("host")?,
            method: text("http_method")?,
            path: text("url_path")?,
            fixed_target: target
                .ok_or_else(|| format!("needs {at}.fixed_target, a number of traces a second"))?,
            rate: rate.ok_or_else(|| format!("needs {at}.rate, a share from 0 to 1"))?,
            taken: Reservoir::default(),
        })
    }

    fn matches(&self, asked: Asked<'_>) -> bool {
        glob(&self.method, asked.method)
            && glob(&self.path, asked.path)
            && glob(&self.host, asked.host)
    }
}

impl Reservoir {
    /// One of the `most` of this second.
    fn takes(&self, most: u32, now_s: u64) -> bool {
        if most == 0 {
            return false;
        }
        let second = now_s << 32;
        let next = |taken: u64| {
            let so_far = if taken >> 32 == now_s & u64::from(u32::MAX) {
                taken & u64::from(u32::MAX)
            } else {
                0
            };
            (so_far < u64::from(most)).then_some(second | (so_far + 1))
        };
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .is_ok()
    }
}

/// `*` for any characters, `?` for one, the rest as it is but for case.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while from < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(letter) if *letter == b'?' || letter.eq_ignore_ascii_case(&text[from]) => {
                at += 1;
                from += 1;
            }
            // The last star takes one character more.
            _ => match &mut star {
                Some((star, taken)) => {
                    *taken += 1;
                    (at, from) = (*star + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|letter| *letter == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked<'a>(host: &'a str, method: &'a str, path: &'a str) -> Asked<'a> {
        Asked { host, method, path }
    }

    #[test]
    fn a_pattern_takes_any_characters_for_a_star_and_one_for_a_question_mark() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("/a/*", "/a/b/c", true),
            ("/a/*/c", "/a/b/c", true),
            ("*.local", "Shop.LOCAL", true),
            ("G?T", "GET", true),
            ("G?T", "GT", false),
            ("/a", "/ab", false),
            ("*a*b", "xxaxxb", true),
            ("*a*b", "xxaxx", false),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn the_fixed_target_is_kept_each_second_and_then_the_share() {
        let sampler = Sampler::new(2, 0.0);
        let any = asked("h", "GET", "/");
        let kept = |now| {
            (0..5)
                .filter(|_| sampler.keeps(any, now, |_| false))
                .count()
        };
        assert_eq!((kept(7), kept(8)), (2, 2));
        assert!(Sampler::new(0, 0.3).keeps(any, 9, |share| share > 0.2));
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let file = r#"{"version": 2, "rules": [
            {"host": "*", "http_method": "*", "url_path": "/health*", "fixed_target": 0, "rate": 0.0},
            {"description": "orders", "host": "shop*", "http_method": "POST", "url_path": "*", "fixed_target": 0, "rate": 1.0}
        ], "default": {"fixed_target": 0, "rate": 0.5}}"#;
        let sampler = Sampler::parse(file).expect("good");
        let share = |asked| {
            let mut drawn = None;
            sampler.keeps(asked, 1, |share| {
                drawn = Some(share);
                false
            });
            drawn
        };
        assert_eq!(share(asked("shop", "POST", "/healthz")), Some(0.0));
        assert_eq!(share(asked("shop", "POST", "/o")), Some(1.0));
        assert_eq!(share(asked("shop", "GET", "/o")), Some(0.5));
    }

    #[test]
    fn a_bad_rule_file_is_refused_by_member() {
        for (file, part) in [
            ("[", "no JSON"),
            (r#"{"version": 1}"#, "version 2"),
            (r#"{"version": 2}"#, "default"),
            (
                r#"{"version": 2, "default": {"fixed_target": 1, "rate": 7}}"#,
                "default.rate",
            ),
            (
                r#"{"version": 2, "rules": [{"service_name": "x"}], "default": {"fixed_target": 1, "rate": 0}}"#,
                "rules[0].service_name",
            ),
        ] {
            let why = Sampler::parse(file).expect_err("bad");
            assert!(why.contains(part), "{why}");
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Whether a trace's row satisfies an expression. At the top a keyword speaks of the trace, and of its root where a
//! trace as such has no such thing; inside a block of one part or one piece of a root cause, which alone must satisfy
//! the whole block.

use serde_json::Value;

use crate::filter::AnnotationTest;
use crate::filter::CauseKind;
use crate::filter::CauseLevel;
use crate::filter::Expression;
use crate::filter::FlagWord;
use crate::filter::GroupFilter;
use crate::filter::GroupWord;
use crate::filter::NumberWord;
use crate::filter::Selector;
use crate::filter::TextTest;
use crate::filter::TextWord;
use crate::span::ACCOUNT;
use crate::span::Flags;
use crate::span::Http;
use crate::span::Node;
use crate::span::Outcome;
use crate::span::seconds;
use crate::summary::Summary;
use crate::summary::causes::Cause;
use crate::summary::causes::CauseEntity;
use crate::summary::causes::CauseException;
use crate::summary::causes::CauseService;
use crate::summary::parts::Part;

impl Selector {
    pub(crate) fn selects(&self, node: &Node) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == found)
        };
        is(&self.name, &node.name) && is(&self.kind, &node.kind) && is(&self.account, ACCOUNT)
    }
}

/// What keywords speak of.
#[derive(Clone, Copy)]
enum Subject<'s> {
    Trace(&'s Summary),
    Part(&'s Part),
    Cause(Piece<'s>),
}

/// A piece of a root cause and its place in the path from the root.
#[derive(Clone, Copy)]
struct Piece<'s> {
    index: usize,
    count: usize,
    what: PieceOf<'s>,
}

#[derive(Clone, Copy)]
enum PieceOf<'s> {
    Service(&'s CauseService),
    Entity(&'s CauseEntity),
    Exception(&'s CauseException),
}

struct Matcher<'m> {
    summary: &'m Summary,
    groups: &'m [GroupFilter],
}

pub(super) fn matches(expression: &Expression, summary: &Summary, groups: &[GroupFilter]) -> bool {
    Matcher { summary, groups }.holds(expression, Subject::Trace(summary))
}

impl Matcher<'_> {
    fn holds(&self, expression: &Expression, subject: Subject<'_>) -> bool {
        match expression {
            Expression::All(parts) => parts.iter().all(|part| self.holds(part, subject)),
            Expression::Any(parts) => parts.iter().any(|part| self.holds(part, subject)),
            Expression::Not(inner) => !self.holds(inner, subject),
            Expression::Flag(word, wanted) => flag(*word, subject) == *wanted,
            Expression::Number(word, comparison, value) => {
                number(*word, subject).is_some_and(|number| comparison.holds(number, *value))
            }
            Expression::Text(word, test) => {
                texts(*word, subject).into_iter().any(|text| match test {
                    None => true,
                    Some((test, value)) => test.holds(text, value),
                })
            }
            Expression::Annotation(key, test) => annotated(key, test.as_ref(), subject),
            Expression::Service(selector, block) => self.summary.parts.iter().any(|part| {
                part.source.is_none() && selector.selects(&part.node) && self.block(block, part)
            }),
            Expression::Edge(source, target, block) => self.summary.parts.iter().any(|part| {
                part.source
                    .as_ref()
                    .is_some_and(|from| source.selects(from))
                    && target.selects(&part.node)
                    && self.block(block, part)
            }),
            Expression::Cause { kind, level, block } => self
                .causes(*kind)
                .iter()
                .flat_map(|cause| pieces(cause, *level))
                .any(|piece| self.holds(block, Subject::Cause(piece))),
            Expression::CauseJson { kind, equal, json } => self.json(*kind, json) == *equal,
            Expression::Group { by, equal, value } => self.member(*by, value) == *equal,
        }
    }

    fn block(&self, block: &Option<Box<Expression>>, part: &Part) -> bool {
        block
            .as_ref()
            .is_none_or(|block| self.holds(block, Subject::Part(part)))
    }

    fn causes(&self, kind: CauseKind) -> &[Cause] {
        let causes = &self.summary.causes;
        match kind {
            CauseKind::Fault => &causes.fault,
            CauseKind::Error => &causes.error,
            CauseKind::ResponseTime => &causes.response_time,
        }
    }

    /// A list stands for all causes of a kind, an object for any one.
    fn json(&self, kind: Option<CauseKind>, wanted: &Value) -> bool {
        let all = [CauseKind::Fault, CauseKind::Error, CauseKind::ResponseTime];
        all.into_iter()
            .filter(|one| kind.is_none_or(|kind| kind == *one))
            .any(|kind| {
                let timed = kind == CauseKind::ResponseTime;
                let causes = self.causes(kind).iter();
                let found: Vec<Value> = causes
                    .map(|cause| {
                        if timed {
                            cause.timed_json()
                        } else {
                            cause.failed_json()
                        }
                    })
                    .collect();
                match wanted {
                    Value::Object(_) => found.iter().any(|cause| agrees(wanted, cause)),
                    _ => agrees(wanted, &Value::Array(found)),
                }
            })
    }

    fn member(&self, by: GroupWord, value: &str) -> bool {
        let called = |group: &&GroupFilter| match by {
            GroupWord::Name => group.name == value,
            GroupWord::Arn => group.arn == value,
        };
        self.groups.iter().filter(called).any(|group| {
            // Groups are not made of groups, so no circle can form.
            group
                .filter
                .as_ref()
                .is_none_or(|filter| !filter.names_a_group() && filter.matches(self.summary, &[]))
        })
    }
}

/// Members that `wanted` leaves out are free; lists must be of equal length.
fn agrees(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => wanted
            .iter()
            .all(|(name, wanted)| found.get(name).is_some_and(|found| agrees(wanted, found))),
        (Value::Array(wanted), Value::Array(found)) => {
            wanted.len() == found.len() && wanted.iter().zip(found).all(|(w, f)| agrees(w, f))
        }
        (Value::Number(wanted), Value::Number(found)) => wanted.as_f64() == found.as_f64(),
        _ => wanted == found,
    }
}

fn pieces(cause: &Cause, level: CauseLevel) -> Vec<Piece<'_>> {
    let services = cause.services.iter();
    let entities = services.clone().flat_map(|service| &service.entities);
    let found: Vec<PieceOf<'_>> = match level {
        CauseLevel::Service => services.map(PieceOf::Service).collect(),
        CauseLevel::Entity => entities.map(PieceOf::Entity).collect(),
        CauseLevel::Exception => entities
            .flat_map(|entity| &entity.exceptions)
            .map(PieceOf::Exception)
            .collect(),
    };
    let count = found.len();
    found
        .into_iter()
        .enumerate()
        .map(|(index, what)| Piece { index, count, what })
        .collect()
}

fn flag(word: FlagWord, subject: Subject<'_>) -> bool {
    match subject {
        Subject::Trace(summary) => {
            let root = summary.root_part();
            match word {
                FlagWord::Ok => root.is_some_and(part_ok),
                FlagWord::Error => summary.flags.error,
                FlagWord::Throttle => summary.flags.throttle,
                FlagWord::Fault => summary.flags.fault,
                FlagWord::Partial => summary.partial,
                FlagWord::Inferred => summary.parts.iter().any(|part| part.inferred),
                FlagWord::Root => root.is_some_and(|part| part.root),
                FlagWord::First | FlagWord::Last | FlagWord::Remote => false,
            }
        }
        Subject::Part(part) => {
            let Flags {
                fault,
                error,
                throttle,
            } = part.flags;
            match word {
                FlagWord::Ok => part_ok(part),
                FlagWord::Error => error,
                FlagWord::Throttle => throttle,
                FlagWord::Fault => fault,
                FlagWord::Partial => !part.complete,
                FlagWord::Inferred => part.inferred,
                FlagWord::Root => part.root,
                FlagWord::First | FlagWord::Last | FlagWord::Remote => false,
            }
        }
        Subject::Cause(piece) => match (word, piece.what) {
            (FlagWord::First, _) => piece.index == 0,
            (FlagWord::Last, _) => piece.index + 1 == piece.count,
            (FlagWord::Inferred, PieceOf::Service(service)) => service.inferred,
            (FlagWord::Remote, PieceOf::Entity(entity)) => entity.remote,
            (FlagWord::Remote, PieceOf::Exception(exception)) => exception.remote,
            _ => false,
        },
    }
}

/// What is in progress is not ok yet.
fn part_ok(part: &Part) -> bool {
    part.complete && part.flags.outcome() == Outcome::Ok
}

fn number(word: NumberWord, subject: Subject<'_>) -> Option<f64> {
    let status = |http: &Option<Http>| http.as_ref()?.status.map(f64::from);
    match (subject, word) {
        (Subject::Trace(summary), NumberWord::ResponseTime) => summary.response_us.map(seconds),
        (Subject::Trace(summary), NumberWord::Duration) => {
            Some(seconds(summary.end_us - summary.start_us))
        }
        (Subject::Trace(summary), NumberWord::HttpStatus) => status(&summary.http),
        (Subject::Part(part), NumberWord::ResponseTime) => part.response_us.map(seconds),
        (Subject::Part(part), NumberWord::Duration) => part.duration_us.map(seconds),
        (Subject::Part(part), NumberWord::HttpStatus) => status(&part.http),
        (Subject::Cause(piece), NumberWord::Index) => Some(piece.index as f64),
        (Subject::Cause(piece), NumberWord::Coverage) => match piece.what {
            PieceOf::Entity(entity) => entity.coverage,
            PieceOf::Service(_) | PieceOf::Exception(_) => None,
        },
        _ => None,
    }
}

fn texts(word: TextWord, subject: Subject<'_>) -> Vec<&str> {
    match subject {
        Subject::Trace(summary) => trace_texts(word, summary),
        Subject::Part(part) => part_text(word, part).into_iter().collect(),
        Subject::Cause(piece) => piece_text(word, piece.what).into_iter().collect(),
    }
}

fn http_text(word: TextWord, http: &Option<Http>) -> Option<&str> {
    let http = http.as_ref()?;
    let member = match word {
        TextWord::HttpUrl => &http.url,
        TextWord::HttpMethod => &http.method,
        TextWord::HttpUserAgent => &http.user_agent,
        TextWord::HttpClientIp => &http.client_ip,
        _ => return None,
    };
    member.as_deref()
}

fn all_of(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

fn trace_texts(word: TextWord, summary: &Summary) -> Vec<&str> {
    let entry = summary.entry_point.as_ref();
    let one = match word {
        TextWord::User => {
            return summary
                .users
                .iter()
                .map(|(user, _)| user.as_str())
                .collect();
        }
        TextWord::AvailabilityZone => return all_of(&summary.zones),
        TextWord::InstanceId => return all_of(&summary.instances),
        TextWord::ResourceArn => return all_of(&summary.arns),
        TextWord::Name => entry.map(|node| node.name.as_str()),
        TextWord::Type => entry.map(|node| node.kind.as_str()),
        TextWord::AccountId => Some(ACCOUNT),
        TextWord::Message => None,
        TextWord::HttpUrl
        | TextWord::HttpMethod
        | TextWord::HttpUserAgent
        | TextWord::HttpClientIp => http_text(word, &summary.http),
    };
    one.into_iter().collect()
}

fn part_text(word: TextWord, part: &Part) -> Option<&str> {
    match word {
        TextWord::User => part.user.as_deref(),
        TextWord::AvailabilityZone => part.zone.as_deref(),
        TextWord::InstanceId => part.instance.as_deref(),
        TextWord::ResourceArn => part.arn.as_deref(),
        TextWord::Name => Some(&part.node.name),
        TextWord::Type => Some(&part.node.kind),
        TextWord::AccountId => Some(ACCOUNT),
        TextWord::Message => None,
        TextWord::HttpUrl
        | TextWord::HttpMethod
        | TextWord::HttpUserAgent
        | TextWord::HttpClientIp => http_text(word, &part.http),
    }
}

fn piece_text(word: TextWord, piece: PieceOf<'_>) -> Option<&str> {
    match (word, piece) {
        (TextWord::Name, PieceOf::Service(service)) => Some(&service.node.name),
        (TextWord::Name, PieceOf::Entity(entity)) => Some(&entity.name),
        (TextWord::Name, PieceOf::Exception(exception)) => Some(&exception.name),
        (TextWord::Message, PieceOf::Exception(exception)) => Some(&exception.message),
        (TextWord::Type, PieceOf::Service(service)) => Some(&service.node.kind),
        (TextWord::AccountId, PieceOf::Service(_)) => Some(ACCOUNT),
        _ => None,
    }
}

fn annotated(key: &str, test: Option<&AnnotationTest>, subject: Subject<'_>) -> bool {
    match subject {
        Subject::Trace(summary) => summary
            .annotations
            .iter()
            .any(|one| one.key == key && annotation(test, &one.value)),
        Subject::Part(part) => part
            .annotations
            .iter()
            .any(|(name, value)| name == key && annotation(test, value)),
        Subject::Cause(_) => false,
    }
}

fn annotation(test: Option<&AnnotationTest>, value: &Value) -> bool {
    match test {
        None => value.as_bool().unwrap_or(true),
        Some(AnnotationTest::Number(comparison, wanted)) => value
            .as_f64()
            .is_some_and(|number| comparison.holds(number, *wanted)),
        Some(AnnotationTest::Flag(wanted)) => value.as_bool() == Some(*wanted),
        // How one asks whether it is set at all, whatever its type.
        Some(AnnotationTest::Text(TextTest::Contains, wanted)) if wanted.is_empty() => true,
        Some(AnnotationTest::Text(test, wanted)) => {
            value.as_str().is_some_and(|text| test.holds(text, wanted))
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! The notation of the table. `needs` and `may` mark required and optional members of the body, `uri` and `query`
//! members that travel in the address, `key` a required one of the query.

macro_rules! shape {
    (structure $name:ident { $($how:ident $member:ident: $of:ident),* $(,)? }) => {
        shape!(@ $name, Structure { members: &[$(shape!(member $how $member $of)),*] });
    };
    (union $name:ident { $($member:ident: $of:ident),* $(,)? }) => {
        shape!(@ $name, Union { members: &[$(shape!(member may $member $of)),*] });
    };
    (list $name:ident of $of:ident $(, $bound:ident $value:literal)*) => {
        shape!(@ $name, List { of: &$of, min: shape!(bound min $($bound $value)*), max: shape!(bound max $($bound $value)*) });
    };
    (text $name:ident $(, $bound:ident $value:literal)* $(; matches $pattern:literal)?) => {
        shape!(@ $name, Text {
            min: shape!(bound min $($bound $value)*),
            max: shape!(bound max $($bound $value)*),
            pattern: shape!(pattern $($pattern)?),
        });
    };
    (choice $name:ident of $($word:literal),+) => { shape!(@ $name, Choice { words: &[$($word),+] }); };
    (integer $name:ident $(, $bound:ident $value:literal)*) => {
        shape!(@ $name, Integer { min: shape!(bound min $($bound $value)*), max: shape!(bound max $($bound $value)*) });
    };
    (long $name:ident $(, $bound:ident $value:literal)*) => {
        shape!(@ $name, Long { min: shape!(bound min $($bound $value)*), max: shape!(bound max $($bound $value)*) });
    };
    (boolean $name:ident) => { shape!(@ $name, Boolean); };

    (@ $name:ident, $($constraint:tt)+) => {
        #[allow(non_upper_case_globals, reason = "the table keeps the model's names so that the two can be compared")]
        pub static $name: $crate::shapes::Shape = $crate::shapes::Shape {
            name: stringify!($name),
            constraint: $crate::shapes::Constraint::$($constraint)+,
        };
    };
    (member needs $member:ident $of:ident) => { shape!(member true Body $member $of) };
    (member may $member:ident $of:ident) => { shape!(member false Body $member $of) };
    (member uri $member:ident $of:ident) => { shape!(member true Uri $member $of) };
    (member query $member:ident $of:ident) => { shape!(member false Query $member $of) };
    (member key $member:ident $of:ident) => { shape!(member true Query $member $of) };
    (member $required:literal $place:ident $member:ident $of:ident) => {
        $crate::shapes::Member {
            name: stringify!($member),
            of: &$of,
            required: $required,
            place: $crate::shapes::Place::$place,
        }
    };
    (bound min min $value:literal $($rest:tt)*) => { Some($value) };
    (bound max max $value:literal $($rest:tt)*) => { Some($value) };
    (bound $wanted:ident $other:ident $value:literal $($rest:tt)*) => { shape!(bound $wanted $($rest)*) };
    (bound $wanted:ident) => { None };
    (pattern $pattern:literal) => {
        Some({
            static PATTERN: std::sync::LazyLock<regex::Regex> =
                std::sync::LazyLock::new(|| regex::Regex::new($pattern).expect("patterns of the table compile: a test uses each"));
            &PATTERN
        })
    };
    (pattern) => { None };
}

//! Results for people: on the terminal, as Markdown and as plots.

pub(crate) mod growth;
pub(crate) mod list;
pub(crate) mod markdown;
mod svg;
pub(crate) mod text;

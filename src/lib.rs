//! Joblog, a durable job queue: a fetched job counts as consumed only after an explicit commit.
//!
//! `docs/ARCHITECTURE.md` says which file to open for what. A program that uses Joblog needs
//! [`client`], and [`worker`] for handlers of jobs.

#![cfg_attr(not(test), deny(clippy::unreachable, clippy::wildcard_enum_match_arm))]

#[cfg(feature = "server")]
pub mod broker;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod clock;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod cron;
#[cfg(feature = "log")]
pub mod log;
#[cfg(feature = "server")]
pub mod queue;
#[cfg(feature = "server")]
pub mod server;
pub mod types;
#[cfg(feature = "worker")]
pub mod worker;

/// The code in the guide, held by its compiler.
#[cfg(all(doctest, feature = "worker"))]
#[doc = include_str!("../docs/guide.md")]
struct Guide;

/// The code in the recipes.
#[cfg(all(doctest, feature = "worker"))]
#[doc = include_str!("../docs/recipes.md")]
struct Recipes;

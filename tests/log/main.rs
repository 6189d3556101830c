//! The log through its public face: what is appended is read, survives crashes as promised, and is
//! refused with file and position when the disk has changed it.

#[cfg(test)]
mod compaction;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod history;
#[cfg(test)]
mod live;
#[cfg(test)]
mod offline;
#[cfg(test)]
mod reading;
#[cfg(test)]
mod replication;
#[cfg(test)]
mod room;
#[cfg(test)]
mod support;

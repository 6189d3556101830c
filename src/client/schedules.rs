//! Schedules: adding, listing, pausing, removing and running them.

use joblog_protocol::DecodeError;
use joblog_protocol::messages::schedule::{
    ScheduleAdd, ScheduleDescription, ScheduleList, ScheduleName, ScheduleQuery, ScheduleRun,
};
use joblog_protocol::name;
use joblog_protocol::opcode::Opcode;

use super::error::ClientError;
use super::face::Client;

/// Schedules. Every call fails with a [`ClientError`]; what is said under *Errors* is special.
impl Client {
    /// Adds a schedule: the server enqueues its job once for each due time.
    ///
    /// # Errors
    /// [`ClientError`]. If an answer was lost, asking again with `replace` set is safe.
    pub async fn add_schedule(&self, schedule: &ScheduleAdd) -> Result<(), ClientError> {
        schedule.timing()?;
        schedule.body()?;
        self.tell(Opcode::ScheduleAdd, schedule).await
    }

    /// Lists schedules by name, without their jobs. For the next page, ask for those behind the
    /// last name of this one.
    pub async fn list_schedules(&self, query: &ScheduleQuery) -> Result<ScheduleList, ClientError> {
        self.ask(Opcode::ScheduleList, query).await
    }

    /// Shows one schedule, with its job and up to `times` of its next due times.
    pub async fn schedule(
        &self,
        schedule: &str,
        times: u32,
    ) -> Result<ScheduleDescription, ClientError> {
        let ScheduleName { schedule } = schedule_name(schedule)?;
        let schedule = Some(schedule);
        let query = ScheduleQuery { schedule, times, limit: 1, ..ScheduleQuery::default() };
        let mut list: ScheduleList = self.ask(Opcode::ScheduleList, &query).await?;
        list.schedules.pop().ok_or_else(|| {
            let cause = DecodeError::Short { need: 1, have: 0 };
            ClientError::Protocol { command: Opcode::ScheduleList.name(), cause }
        })
    }

    /// Pauses a schedule: it does not fire until it is resumed.
    ///
    /// # Errors
    /// [`ClientError`]; after any of them it is safe to ask again.
    pub async fn pause_schedule(&self, schedule: &str) -> Result<(), ClientError> {
        self.about_schedule(Opcode::SchedulePause, schedule).await
    }

    /// Ends the pause of a schedule: it goes on with what is due from now on.
    ///
    /// # Errors
    /// [`ClientError`]; after any of them it is safe to ask again.
    pub async fn resume_schedule(&self, schedule: &str) -> Result<(), ClientError> {
        self.about_schedule(Opcode::ScheduleResume, schedule).await
    }

    /// Removes a schedule. Its jobs stay.
    pub async fn remove_schedule(&self, schedule: &str) -> Result<(), ClientError> {
        self.about_schedule(Opcode::ScheduleRemove, schedule).await
    }

    /// Enqueues a schedule's job now, beside its due times.
    ///
    /// # Errors
    /// [`ClientError`]. If an answer was lost, the job may be enqueued.
    pub async fn run_schedule(&self, schedule: &str) -> Result<ScheduleRun, ClientError> {
        self.ask(Opcode::ScheduleRun, &schedule_name(schedule)?).await
    }

    async fn about_schedule(&self, opcode: Opcode, schedule: &str) -> Result<(), ClientError> {
        self.tell(opcode, &schedule_name(schedule)?).await
    }
}

fn schedule_name(schedule: &str) -> Result<ScheduleName, DecodeError> {
    name::check(schedule)?;
    Ok(ScheduleName { schedule: schedule.to_owned() })
}

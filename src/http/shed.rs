//! Overload: what would only wait is refused at once, so that what is let in stays fast.

use tokio::sync::SemaphorePermit;

use super::App;
use super::problem::Problem;

impl App {
    /// A place for a request for records, until its answer begins. Health and metrics need none: they are what an operator
    /// looks at when there is none left.
    // Called by the handlers, since a layer costs every lookup a box more.
    pub fn place(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.places.try_acquire().map_err(|_| {
            self.metrics.shed();
            Problem::overloaded()
        })
    }
}

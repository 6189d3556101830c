//! The terminal while `qctl top` has it, and giving it back, whatever happens.

use std::io::{self, Stdout, Write};
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::style::Print;
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
    LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use crossterm::{execute, queue};
use rustix::termios::tcgetwinsize;

/// Whether the terminal has to be given back.
static TAKEN: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

/// The whole terminal. It is given back when this is dropped, and before a panic ends the process.
#[derive(Debug)]
pub(crate) struct Screen {
    stdout: Stdout,
}

impl Screen {
    /// Takes the terminal.
    pub(crate) fn take() -> io::Result<Self> {
        install_hook();
        // From here on a failure gives back what was taken so far.
        TAKEN.store(true, Ordering::SeqCst);
        let mut screen = Self { stdout: io::stdout() };
        enable_raw_mode()?;
        execute!(screen.stdout, EnterAlternateScreen, Hide)?;
        Ok(screen)
    }

    /// How many columns and lines there are.
    pub(crate) fn size(&self) -> io::Result<(usize, usize)> {
        let size = tcgetwinsize(&self.stdout)?;
        Ok((size.ws_col.into(), size.ws_row.into()))
    }

    /// Shows these lines and nothing else. They must be no more than there is room for.
    pub(crate) fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        queue!(self.stdout, BeginSynchronizedUpdate, MoveTo(0, 0))?;
        for (number, line) in lines.iter().enumerate() {
            if number > 0 {
                queue!(self.stdout, Print("\r\n"))?;
            }
            queue!(self.stdout, Print(line), Clear(ClearType::UntilNewLine))?;
        }
        queue!(self.stdout, Clear(ClearType::FromCursorDown), EndSynchronizedUpdate)?;
        self.stdout.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// A panic's message must stand on the screen that stays. The process may end without unwinding.
fn install_hook() {
    HOOK.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            give_back();
            hook(panic);
        }));
    });
}

/// Gives the terminal back if it was taken. If that fails, nobody can be told.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        drop(execute!(io::stdout(), Show, LeaveAlternateScreen));
        drop(disable_raw_mode());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_gives_the_terminal_back_first() {
        install_hook();
        TAKEN.store(true, Ordering::SeqCst);
        let panicked = panic::catch_unwind(|| panic::panic_any("this test panics on purpose"));
        assert!(panicked.is_err());
        assert!(!TAKEN.load(Ordering::SeqCst), "given back before the message was printed");
    }
}

//! A machine application of one's own: accounts that can be debited, but never below zero.
//!
//! It runs in an emulated HSM, so that it can be tried with `seeway job`:
//!
//! ```text
//! cargo run -p seeway-machine --example ledger -- ~/.ssh/id_ed25519.pub
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use seeway_machine::hsm::{Hsm, HsmConfig, MachinePort};
use seeway_machine::runtime::{Application, Job, Machine, MachineConfig, Processors};

/// The application's own statuses; `0x0001_0000` is the first that it may use.
const NO_SUCH_COMMAND: u32 = 0x0001_0000;
const INSUFFICIENT_FUNDS: u32 = 0x0001_0001;

/// What the accounts hold.
#[derive(Default)]
struct Accounts(HashMap<String, u64>);

impl Accounts {
    /// Runs one command, `credit ACCOUNT AMOUNT` or `debit ACCOUNT AMOUNT`, and returns the new balance, or a status.
    fn run(&mut self, command: &[u8]) -> Result<u64, u32> {
        let text = std::str::from_utf8(command).map_err(|_| NO_SUCH_COMMAND)?;
        let &[verb, account, amount] = text.split_whitespace().collect::<Vec<_>>().as_slice() else {
            return Err(NO_SUCH_COMMAND);
        };
        let amount: u64 = amount.parse().map_err(|_| NO_SUCH_COMMAND)?;
        let balance = self.0.get(account).copied().unwrap_or_default();
        let new_balance = match verb {
            "credit" => balance.checked_add(amount).ok_or(NO_SUCH_COMMAND)?,
            "debit" => balance.checked_sub(amount).ok_or(INSUFFICIENT_FUNDS)?,
            _ => return Err(NO_SUCH_COMMAND),
        };
        self.0.insert(account.to_owned(), new_balance);
        Ok(new_balance)
    }
}

struct Ledger {
    /// Shared with the instances before and after this one.
    accounts: Arc<Mutex<Accounts>>,
}

impl Application for Ledger {
    fn run(&self, job: Job) {
        let result = self.accounts.lock().expect("no command panics").run(job.bytes());
        match result {
            Ok(balance) => job.reply(balance.to_string().as_bytes()),
            Err(INSUFFICIENT_FUNDS) => job.fail(INSUFFICIENT_FUNDS, Some("insufficient funds")),
            Err(status) => job.fail(status, Some("write `credit ACCOUNT AMOUNT` or `debit ACCOUNT AMOUNT`")),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let public_key =
        std::env::args().nth(1).ok_or("give the file of an SSH public key, such as ~/.ssh/id_ed25519.pub")?;
    let public_key = std::fs::read_to_string(public_key)?;

    let config = MachineConfig {
        name: "ledger".to_owned(),
        processors: Processors::Threads(NonZeroUsize::new(2).ok_or("two is not zero")?),
        ..MachineConfig::default()
    };
    let accounts = Arc::new(Mutex::new(Accounts::default()));
    let machine = Machine::start(config, move || Ledger { accounts: Arc::clone(&accounts) })?;

    let ports = vec![MachinePort::machine(machine)];
    let hsm = Hsm::start(HsmConfig::new("127.0.0.1:0".parse()?, vec![public_key], ports)).await?;

    println!("The ledger takes jobs; Ctrl-C ends it. Try, with your private key as IDENTITY:");
    println!(
        "seeway job ssh://codesafe@{} --identity IDENTITY --host-key '{}' --data 'credit alice 100'",
        hsm.ssh_address(),
        hsm.host_key()
    );
    std::future::pending().await
}

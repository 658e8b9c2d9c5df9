//! demo
use anyhow::Result;
use super::{Exit, Scene};
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// End after the first round
    #[arg(long)]
    once: bool,
}
pub(super) async fn run(_scene: &Scene, _arguments: &Arguments) -> Result<Exit> { anyhow::bail!("x") }

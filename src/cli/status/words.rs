//! How a fleet stands, in words for a terminal. It must never say what the JSON does not hold.

use super::super::output::{Output, Tone, moment, some};
use super::super::story::batch_name;
use super::who::LeftOut;
use super::{FleetHold, FleetStatus, NewOnes, Progress, Refused, SHOWN};

impl FleetStatus {
    pub(super) fn print(&self, out: Output) {
        let configured = if self.configured { "" } else { " (no longer in the config file)" };
        out.line(out.tone(Tone::Strong, format!("fleet {}{configured}", self.fleet)));
        for problem in &self.problems {
            out.line(out.tone(Tone::Bad, format!("  cannot be read: {problem}")));
        }
        if let Some(FleetHold { by, at, note }) = &self.hold {
            let note = if note.is_empty() { String::new() } else { format!(": {note}") };
            let text = format!(
                "  HELD since {} by {by}{note}; `rekeyd release {}` lets rotations begin",
                moment(*at),
                self.fleet
            );
            out.line(out.tone(Tone::Bad, text));
        }
        match (&self.schedule, self.next_due) {
            (Some(schedule), Some(due)) => out.line(format!("  due {} ({schedule})", moment(due))),
            (Some(schedule), None) => {
                out.line(format!("  due by {schedule}, reckoned when `rekeyd run` starts with it"))
            }
            (None, _) if self.configured => out.line("  no schedule: rotated by hand"),
            (None, _) => {}
        }
        if let Some(asked) = self.asked {
            out.line(format!("  a rotation was asked for {} and waits for its turn", moment(asked)));
        }
        if let Some(Refused { at, why }) = &self.refused {
            out.line(out.tone(Tone::Bad, format!("  the last start was refused {}: {why}", moment(*at))));
        }
        match &self.open {
            Some(open) => open.print(out),
            None => out.line("  no open rotation"),
        }
        match &self.last {
            Some(last) => {
                let at = last.ended.map(moment).unwrap_or_default();
                let (kind, counts) = (last.kind, last.counts.text());
                out.line(format!("  last {kind} completed {at}: {counts} ({})", last.rotation));
                last.print_key(out, "  ");
            }
            None => out.line("  never rotated"),
        }
        if let Some(last) = &self.last_whole {
            let at = last.ended.map(moment).unwrap_or_default();
            let (kind, counts) = (last.kind, last.counts.text());
            out.line(format!("  last {kind} of the whole fleet completed {at}: {counts} ({})", last.rotation));
        }
        if let (None, Some(last)) = (&self.open, &self.last) {
            last.print_excluded(out, "  ");
        }
        if !self.late.is_empty() && self.open.is_none() {
            out.line(format!("  bound, and off, out of reach or never proven: {}", some(&self.late, SHOWN)));
        }
        if let Some(NewOnes { at, instances }) = &self.new {
            let (ids, at, fleet) = (some(instances, SHOWN), moment(*at), &self.fleet);
            let text =
                format!("  came after the last rotation (seen {at}): {ids}; `rekeyd catch-up {fleet}` binds them");
            out.line(out.tone(Tone::Careful, text));
        }
        for pair in &self.retiring {
            let until = pair.until.map(|at| format!(" until {}", moment(at))).unwrap_or_default();
            let ids = some(&pair.waits_for, SHOWN);
            let ids = if ids.is_empty() { ids } else { format!("; it waits for {ids}") };
            let text = format!("  old key pair {}: {}{until}{ids} ({})", pair.key_pair, pair.why, pair.journal);
            out.line(if pair.state == "held" { out.tone(Tone::Bad, text) } else { text });
        }
        for kept in &self.kept {
            out.line(format!(
                "  kept private key {}: its pair is deleted, no login proved its successor ({})",
                kept.private_key, kept.journal
            ));
        }
    }
}

impl Progress {
    pub(super) fn print(&self, out: Output) {
        let stand = match (self.fingerprint.is_some(), self.batch) {
            (false, _) => "making the key".to_string(),
            (true, Some(batch)) => format!("at {} of {} batches", batch_name(batch), self.batches),
            (true, None) => "importing the key, or ending".to_string(),
        };
        let undoes = self.undoes.map(|undone| format!(" of rotation {undone}")).unwrap_or_default();
        let text = format!("  open {} {}{undoes} since {}: {stand}", self.kind, self.rotation, moment(self.begun));
        out.line(out.tone(Tone::Careful, text));
        out.line(format!("    {}", self.counts.text()));
        self.print_key(out, "    ");
        self.print_excluded(out, "    ");
        if let Some(reason) = &self.held_because {
            out.line(out.tone(Tone::Bad, format!("    HELD: {reason}")));
        }
        for text in [&self.way_on, &self.waits].into_iter().flatten() {
            out.line(format!("    {text}"));
        }
        if !self.owed_starts.is_empty() {
            let since = self.owed_since.map(|since| format!(" (since {})", moment(since))).unwrap_or_default();
            let text = format!("    owed a start{since}: {}", some(&self.owed_starts, SHOWN));
            out.line(out.tone(Tone::Careful, text));
        }
    }

    /// Its key, and where the private half is.
    fn print_key(&self, out: Output, indent: &str) {
        match (&self.fingerprint, &self.private_key) {
            (Some(print), Some(place)) => {
                let way_in = self.way_in.as_ref().map(|way| format!(" ({way})")).unwrap_or_default();
                out.line(format!("{indent}key {print} in {place}{way_in}"));
            }
            (Some(print), None) => {
                out.line(format!("{indent}key {print}, a stranger's: nobody here has its private half"))
            }
            (None, _) => {}
        }
    }

    /// Who was left out, and why.
    fn print_excluded(&self, out: Output, indent: &str) {
        for LeftOut { instance, reason } in self.excluded.iter().take(SHOWN) {
            out.line(format!("{indent}excluded: {instance}: {reason}"));
        }
        if self.excluded.len() > SHOWN {
            let more = self.excluded.len() - SHOWN;
            out.line(format!("{indent}excluded: and {more} more: `rekeyd show {}` names all", self.rotation));
        }
    }
}

//! Verbs that break calls.

use super::EditError;
use crate::scenario::{Effect, Fault, Scenario};

impl Scenario {
    /// Makes a function (`*` for all) slow, failing or hanging, for all calls or for those that concern one GPU.
    pub fn break_call(&mut self, function: &str, gpu: Option<&str>, effect: Effect) -> Result<(), EditError> {
        let gpu = self.uuid_of(gpu)?;
        let same_kind = |other: Effect| std::mem::discriminant(&other) == std::mem::discriminant(&effect);
        self.faults
            .retain(|fault| fault.function != function || fault.gpu != gpu || !same_kind(fault.effect));
        self.faults.push(Fault {
            function: function.to_owned(),
            gpu,
            effect,
        });
        Ok(())
    }

    /// Takes back [`Scenario::break_call`]: for one function or all, for one GPU or all. Returns how many were taken back.
    pub fn mend_calls(&mut self, function: Option<&str>, gpu: Option<&str>) -> Result<usize, EditError> {
        let gpu = self.uuid_of(gpu)?;
        let before = self.faults.len();
        self.faults.retain(|fault| {
            let meant =
                function.is_none_or(|function| function == fault.function) && (gpu.is_none() || gpu == fault.gpu);
            !meant
        });
        Ok(before - self.faults.len())
    }

    fn uuid_of(&self, wanted: Option<&str>) -> Result<Option<String>, EditError> {
        wanted
            .map(|wanted| Ok(self.gpus[self.find(wanted)?].uuid.clone()))
            .transpose()
    }
}

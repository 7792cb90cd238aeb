//! From a queue's figures to the metric: pure arithmetic.

use tidemark_trigger::{Choice, Reading};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub(super) enum Mode {
    #[choice("QueueLength")]
    QueueLength,
    #[choice("MessageRate")]
    MessageRate,
    #[choice("DeliverGetRate")]
    DeliverGetRate,
    #[choice("PublishedToDeliveredRatio")]
    PublishedToDeliveredRatio,
    #[choice("ExpectedQueueConsumptionTime")]
    ExpectedQueueConsumptionTime,
}

/// How the figures of several queues become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub(super) enum Operation {
    Sum,
    Avg,
    Max,
}

/// Figures of one queue, or of several combined.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Figures {
    pub messages: i64,
    /// Messages a second.
    pub publish_rate: f64,
    /// Messages a second.
    pub deliver_get_rate: f64,
}

impl Figures {
    /// Combines the figures of several queues; those of none are zero. The average of counts is truncated.
    pub fn combine(all: &[Self], operation: Operation) -> Self {
        let sum = all.iter().fold(Self::default(), |sum, figures| Self {
            messages: sum.messages.saturating_add(figures.messages),
            publish_rate: sum.publish_rate + figures.publish_rate,
            deliver_get_rate: sum.deliver_get_rate + figures.deliver_get_rate,
        });
        match operation {
            Operation::Sum => sum,
            Operation::Avg if all.is_empty() => sum,
            Operation::Avg => Self {
                messages: sum.messages / i64::try_from(all.len()).unwrap_or(i64::MAX),
                publish_rate: sum.publish_rate / all.len() as f64,
                deliver_get_rate: sum.deliver_get_rate / all.len() as f64,
            },
            Operation::Max => all.iter().fold(Self::default(), |max, figures| Self {
                messages: max.messages.max(figures.messages),
                publish_rate: max.publish_rate.max(figures.publish_rate),
                deliver_get_rate: max.deliver_get_rate.max(figures.deliver_get_rate),
            }),
        }
    }

    /// The metric's value and whether the trigger is active.
    ///
    /// A queue that fills while nobody takes anything has no finite ratio and no finite time of consumption: it is
    /// active, and its value is the activation threshold.
    pub fn reading(self, mode: Mode, activation: f64) -> Reading {
        let (count, publish, deliver) = (self.messages as f64, self.publish_rate, self.deliver_get_rate);
        let (value, stuck) = match mode {
            Mode::QueueLength => (count, false),
            Mode::MessageRate => (publish, count > activation),
            Mode::DeliverGetRate => (deliver, false),
            Mode::PublishedToDeliveredRatio if publish <= 0.0 => (0.0, false),
            Mode::PublishedToDeliveredRatio if deliver == 0.0 => (activation, true),
            Mode::PublishedToDeliveredRatio if deliver > 0.0 => (publish / deliver, false),
            Mode::PublishedToDeliveredRatio => (0.0, false),
            Mode::ExpectedQueueConsumptionTime if self.messages == 0 => (0.0, false),
            Mode::ExpectedQueueConsumptionTime if deliver == 0.0 => (activation, self.messages > 0),
            Mode::ExpectedQueueConsumptionTime => ((publish - deliver) / deliver + count / deliver, false),
        };
        Reading { value, active: value > activation || stuck }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(messages: i64, publish_rate: f64, deliver_get_rate: f64) -> Figures {
        Figures { messages, publish_rate, deliver_get_rate }
    }

    #[test]
    fn each_mode_has_its_value_and_its_activity() {
        use Mode::*;
        for (mode, given, activation, value, active) in [
            (QueueLength, figures(3, 9.0, 9.0), 2.0, 3.0, true),
            (QueueLength, figures(3, 9.0, 9.0), 3.0, 3.0, false),
            (MessageRate, figures(0, 1.5, 0.0), 1.0, 1.5, true),
            (MessageRate, figures(5, 0.0, 0.0), 1.0, 0.0, true),
            (MessageRate, figures(1, 1.0, 0.0), 1.0, 1.0, false),
            (DeliverGetRate, figures(5, 5.0, 0.5), 0.0, 0.5, true),
            (DeliverGetRate, figures(5, 5.0, 0.5), 0.5, 0.5, false),
            (PublishedToDeliveredRatio, figures(0, 3.0, 2.0), 1.0, 1.5, true),
            (PublishedToDeliveredRatio, figures(0, 3.0, 0.0), 7.0, 7.0, true),
            (PublishedToDeliveredRatio, figures(9, 0.0, 0.0), 0.0, 0.0, false),
            (PublishedToDeliveredRatio, figures(9, 0.0, 2.0), 0.0, 0.0, false),
            (ExpectedQueueConsumptionTime, figures(0, 9.0, 0.0), 0.0, 0.0, false),
            (ExpectedQueueConsumptionTime, figures(9, 9.0, 0.0), 4.0, 4.0, true),
            (ExpectedQueueConsumptionTime, figures(10, 4.0, 2.0), 5.0, 6.0, true),
            (ExpectedQueueConsumptionTime, figures(1, 0.0, 4.0), 0.0, -0.75, false),
        ] {
            assert_eq!(given.reading(mode, activation), Reading { value, active }, "{mode:?} {given:?} {activation}");
        }
    }

    #[test]
    fn several_queues_combine_by_the_operation() {
        let all = [figures(1, 1.0, 0.0), figures(4, 2.0, 3.0), figures(3, 0.0, 0.0)];
        assert_eq!(Figures::combine(&all, Operation::Sum), figures(8, 3.0, 3.0));
        assert_eq!(Figures::combine(&all, Operation::Avg), figures(2, 1.0, 1.0));
        assert_eq!(Figures::combine(&all, Operation::Max), figures(4, 2.0, 3.0));
        for operation in [Operation::Sum, Operation::Avg, Operation::Max] {
            assert_eq!(Figures::combine(&[], operation), Figures::default());
        }
    }
}

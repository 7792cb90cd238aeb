use jiff::Timestamp;
use serde_json::{Value, json};
use tidemark_engine::hpa::Phase;
use tidemark_engine::metric::Target;
use tidemark_engine::scaled_job::{
    self, Bounds, Calculation, Counts, Demand, End, Finished, History, JobPod, Policy, Record, Strategy,
};

use super::{check, compared, count, strings, text};

#[test]
fn scaled_jobs_are_scaled_as_the_cases_say() {
    check("scaledjob.json", scaled_job, &[]);
}

fn scaled_job(op: &str, given: &Value, expect: &Value) -> Option<Vec<(String, Value, Value)>> {
    let found = match op {
        "strategyChosen" => json!({"strategy": strategy(given).as_str()}),
        "strategy" => {
            let room = number(&given["maxReplicaCount"]);
            let wish = strategy(given).wish(demand(given), counts(given), room);
            json!({"maxScale": wish.limit, "scaleTo": wish.scale_to})
        }
        "decision" => {
            let calculation = Calculation::default();
            let policy = Policy { bounds: bounds(given), strategy: strategy(given), calculation };
            let wish = policy.wish(demand(given), counts(given));
            json!({"maxScale": wish.limit, "scaleTo": wish.scale_to})
        }
        "bounds" => {
            let bounds = bounds(given);
            json!({"minReplicaCount": bounds.minimum, "maxReplicaCount": bounds.room})
        }
        "targetAverage" => {
            let targets = given["targets"].as_array().unwrap();
            let targets = targets.iter().map(|target| Target::AverageValue(number(target) * 1000));
            let average = scaled_job::target_average(targets);
            // The cases write whole numbers without decimals.
            if average.fract() == 0.0 { json!({"value": average as i64}) } else { json!({"value": average}) }
        }
        "state" => state(given),
        "pendingJob" => pending(given),
        "jobFinished" => {
            let conditions = given["conditions"].as_array().unwrap();
            let end = scaled_job::end(conditions.iter().map(|c| (text(c, "type"), text(c, "status"))));
            json!({"finished": end.is_some(), "condition": end.map_or("", End::as_str)})
        }
        "cleanup" => return Some(clean_up(given, expect)),
        "jobMetadata" => return Some(metadata(given, expect)),
        _ => return None,
    };
    Some(compared(expect, &found))
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn strategy(given: &Value) -> Strategy {
    let deduction = count(&given["customScalingQueueLengthDeduction"]);
    Strategy::choose(text(given, "strategy"), deduction, given["customScalingRunningJobPercentage"].as_str())
}

fn demand(given: &Value) -> Demand {
    Demand { active: true, queue: number(&given["scaleTo"]), jobs: number(&given["maxScale"]) }
}

fn counts(given: &Value) -> Counts {
    Counts { running: number(&given["runningJobs"]), pending: number(&given["pendingJobs"]) }
}

fn bounds(given: &Value) -> Bounds {
    Bounds::new(count(&given["minReplicaCount"]), count(&given["maxReplicaCount"]))
}

fn state(given: &Value) -> Value {
    let bounds = bounds(given);
    let record = |trigger: &Value| {
        let part = |key: &str| trigger[key].as_f64().unwrap();
        Record::new(part("queueLength"), part("averageValue"), trigger["active"] == json!(true), bounds)
    };
    let records: Vec<Record> = given["triggers"].as_array().unwrap().iter().map(record).collect();
    let calculation = Calculation::from_word(text(given, "multipleScalersCalculation"));
    let demand = scaled_job::combine(&records, calculation, bounds);
    json!({"active": demand.active, "error": false, "queueLength": demand.queue, "maxValue": demand.jobs})
}

fn pending(given: &Value) -> Value {
    let pods = given["pods"].as_array().unwrap().iter().map(|pod| {
        let conditions = pod["conditions"].as_array().map_or(&[][..], Vec::as_slice);
        let is_true = conditions.iter().filter(|condition| text(condition, "status") == "True");
        JobPod {
            phase: Phase::from_word(text(pod, "phase")),
            true_conditions: is_true.map(|condition| text(condition, "type")).collect(),
        }
    });
    let pods: Vec<JobPod<'_>> = pods.collect();
    let asked = given["pendingPodConditions"].as_array().map_or(&[][..], Vec::as_slice);
    let asked: Vec<&str> = asked.iter().map(|condition| condition.as_str().unwrap()).collect();
    json!({"pending": scaled_job::is_pending(&pods, &asked)})
}

fn clean_up(given: &Value, expect: &Value) -> Vec<(String, Value, Value)> {
    let finished = |job: &Value| Finished {
        name: text(job, "name").to_owned(),
        end: if text(job, "condition") == "Failed" { End::Failed } else { End::Complete },
        time: text(job, "completionTime").parse::<Timestamp>().ok(),
    };
    let jobs: Vec<Finished> = given["jobs"].as_array().unwrap().iter().map(finished).collect();
    let limit = |key: &str| count(&given[key]);
    let history = History::new(limit("successfulJobsHistoryLimit"), limit("failedJobsHistoryLimit"));
    let mut deleted = scaled_job::clean_up(&jobs, history);
    deleted.sort_unstable();
    if let Some(expected) = expect["deletedIncludes"].as_array() {
        deleted.retain(|name| expected.iter().any(|expected| expected == name));
        return vec![("deletedIncludes".to_owned(), sorted(expected), json!(deleted))];
    }
    vec![("deleted".to_owned(), sorted(expect["deleted"].as_array().unwrap()), json!(deleted))]
}

fn sorted(names: &[Value]) -> Value {
    let mut names: Vec<&str> = names.iter().map(|name| name.as_str().unwrap()).collect();
    names.sort_unstable();
    json!(names)
}

/// Labels and annotations that the case does not name may be there.
fn metadata(given: &Value, expect: &Value) -> Vec<(String, Value, Value)> {
    let (labels, annotations) = (strings(&given["labels"]), strings(&given["annotations"]));
    let made = scaled_job::metadata(text(given, "name"), &labels, &annotations, number(&given["generation"]), "0.0.0");
    let mut facts = vec![
        ("generateName".to_owned(), expect["generateName"].clone(), json!(made.generate_name)),
        ("restartPolicy".to_owned(), expect["restartPolicy"].clone(), json!(scaled_job::restart_policy(""))),
    ];
    for (what, map) in [("labels", &made.labels), ("annotations", &made.annotations)] {
        for (key, value) in expect[what].as_object().unwrap() {
            facts.push((format!("{what}.{key}"), value.clone(), json!(map.get(key))));
        }
    }
    facts
}

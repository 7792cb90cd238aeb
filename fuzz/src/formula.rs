//! Formulas: any text either does not compile, with an error that has its place in the text, or evaluates on any values
//! without a panic, twice to the same, and without an error of types if the compiler promised that.

use tidemark_engine::formula::{EvalProblem, Formula};

/// The triggers that a formula may name.
pub const NAMES: [&str; 5] = ["a", "b", "c", "queue", "odd name"];

/// Rows of values, one for each name.
const VALUES: [[Option<f64>; 5]; 5] = [
    [Some(-1.0), Some(-1.0), Some(-1.0), Some(-1.0), Some(-1.0)],
    [Some(0.0), Some(1.5), Some(7.0), Some(1e6), Some(0.1)],
    [None, None, None, None, None],
    [Some(f64::NAN), Some(f64::INFINITY), Some(f64::NEG_INFINITY), Some(f64::MAX), Some(-0.0)],
    [Some(3.0), None, Some(9.3e18), Some(-9.3e18), Some(f64::MIN_POSITIVE)],
];

/// Panics if anything of that does not hold for the input.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let formula = match Formula::compile(text, &NAMES) {
        Ok(formula) => formula,
        Err(error) => {
            assert!(error.offset <= text.len(), "{error} at {} of {}", error.offset, text.len());
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    for row in VALUES {
        let value_of = |name: &str| NAMES.iter().position(|known| *known == name).and_then(|place| row[place]);
        let outcome = formula.evaluate(&value_of);
        assert_eq!(format!("{outcome:?}"), format!("{:?}", formula.evaluate(&value_of)), "{text}");
        if let Err(error) = outcome {
            assert!(error.offset <= text.len(), "{error} at {} of {}", error.offset, text.len());
            let by_type = matches!(error.problem, EvalProblem::Type(_));
            assert!(!(by_type && formula.is_fully_typed()), "{text}: {error}, though it was promised that types fit");
        }
    }
}

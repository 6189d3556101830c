//! The small operations in time: `cargo bench -p joblog-bench`.

mod ops;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (name, make) in ops::all() {
        let mut op = make();
        criterion.bench_function(name, |bencher| bencher.iter(&mut op));
    }
    criterion.final_summary();
}

//! Runs the functions of the booking example: `boki dev` starts this program.

fn main() -> boki::Result<()> {
    booking::worker().run()
}

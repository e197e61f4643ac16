"""Evidence: grids of trainings and evaluations on the phantom, and the report on them."""

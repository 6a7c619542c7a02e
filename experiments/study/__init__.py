"""The study: many runs of one configuration, planned, trained in groups, evaluated and stored (planning, runner,
records), and comparisons of learning-rate schedules (schedules)."""

"""What `same_numbers.py` calls of the checkout at hand."""

try:
    from same_numbers_now import UsageError, learner_of, measure, meta_step, sample_tasks, standard_settings
except ImportError:
    from same_numbers_before import UsageError, learner_of, measure, meta_step, sample_tasks, standard_settings

__all__ = ["UsageError", "learner_of", "measure", "meta_step", "sample_tasks", "standard_settings"]

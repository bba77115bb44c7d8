"""What is seen of trainings while they run: pictures at validations, and logs.

Nothing here changes a training, and the record of its numbers is `metrics.jsonl` alone.
"""

"""Wiring: definitions, jobs, schedules, sensors, resources."""

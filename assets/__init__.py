"""Dagster assets: one noun per asset."""

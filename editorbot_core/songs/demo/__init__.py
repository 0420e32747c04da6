"""Demo songs, composed: form, harmony, synthesis, and the annotation of what was composed."""

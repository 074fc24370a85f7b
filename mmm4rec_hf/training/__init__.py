"""Training: recipes, pretraining over several domains, fine-tuning."""

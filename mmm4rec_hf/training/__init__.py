"""Training: the trainer and its optimizers, recipes, pretraining over several domains, fine-tuning."""

"""The mathematics of adversarial training, once each, as plain functions of tensors."""

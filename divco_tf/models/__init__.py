"""The networks: dividing rules, backbones, the branch stack."""

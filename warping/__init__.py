"""GEN_TYPE 5 before training: parts of the body from the target's frames, carried to the pose that is asked for."""

"""The tutorials' programs in TensorFlow/Keras, and one in plain PyTorch: what `elegan` is measured against.

Nothing here imports `elegan`, and nothing in `elegan` imports this. See `keras_programs` for the commands.
"""

"""The bundled demo set; read it with `radio_dspy.datasets.demo()`."""

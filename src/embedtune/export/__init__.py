"""Other forms of a model: graphs for ONNX Runtime and OpenVINO, and the way to a hub."""

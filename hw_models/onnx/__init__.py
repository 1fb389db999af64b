"""The network IR as an int8 ONNX model; needs the package onnx."""

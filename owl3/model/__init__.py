"""The Owl3 model: Qwen2 and SigLIP joined by hyper attention (mPLUG-Owl3, arXiv:2408.04840).

Importing this package makes `AutoConfig`, `AutoModelForImageTextToText`, `AutoModel`, `AutoImageProcessor` and
`AutoProcessor` know the model type `owl3`. Nothing else happens.
"""

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageTextToText, AutoProcessor

from owl3.model.config import Owl3Config
from owl3.model.image_processing import Owl3ImageProcessor
from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.model.processing import Owl3Processor

AutoConfig.register("owl3", Owl3Config, exist_ok=True)
AutoModel.register(Owl3Config, Owl3ForConditionalGeneration, exist_ok=True)
AutoModelForImageTextToText.register(Owl3Config, Owl3ForConditionalGeneration, exist_ok=True)
AutoImageProcessor.register(Owl3Config, image_processor_classes={"pil": Owl3ImageProcessor}, exist_ok=True)
AutoProcessor.register(Owl3Config, Owl3Processor, exist_ok=True)

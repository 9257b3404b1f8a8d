"""Real models of many architectures, each of random weights and a few thousand of them, saved to a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["a", "cat", "dog", "hen", "saw", "on", "mat", "the", "sat", "is", "what", "how", "many", "photo", "of", "red"]
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
BERT = SMALL | {"vocab_size": 80, "max_position_embeddings": 64, "initializer_range": 0.5}
LLAMA = SMALL | {"num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 256, "initializer_range": 0.3}
VISION = SMALL | {"image_size": 32, "patch_size": 8, "initializer_range": 0.3}
LABELS = {"id2label": {0: "animal", 1: "tool", 2: "fruit"}, "label2id": {"animal": 0, "tool": 1, "fruit": 2}}
TAGS = {"id2label": {0: "O", 1: "B-PER", 2: "I-PER"}, "label2id": {"O": 0, "B-PER": 1, "I-PER": 2}}
CHAT = "{% for m in messages %}{{ m['role'] }}: {% if m['content'] is string %}{{ m['content'] }}{% else %}" \
    "{% for c in m['content'] %}{{ c['text'] if c['type'] == 'text' else '<image>' }}{% endfor %}{% endif %}\n" \
    "{% endfor %}assistant:"  # fmt: skip
SIZE = {"height": 32, "width": 32}

BUILDERS: dict[str, Callable[[Path], None]] = {}


def build(kind: str, folder: Path) -> str:
    """A model of this kind, saved to a folder, whose path comes back."""
    import torch

    torch.manual_seed(0)
    BUILDERS[kind](folder)
    return str(folder)


def builder(function: Callable[[Path], None]) -> Callable[[Path], None]:
    BUILDERS[function.__name__] = function
    return function


def save(folder: Path, *parts: Any) -> None:
    for part in parts:
        part.save_pretrained(folder)


def words(folder: Path, **options: Any) -> Any:
    """A WordPiece tokenizer that knows a few words and all letters."""
    from transformers import BertTokenizer

    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *WORDS,
        *LETTERS[1:],
        *[f"##{each}" for each in LETTERS],
    ]
    folder.mkdir(parents=True, exist_ok=True)
    return BertTokenizer(vocab={each: at for at, each in enumerate(vocabulary)}, model_max_length=64, **options)


def bytes_tokenizer(**options: Any) -> Any:
    """A byte-level BPE of a few hundred tokens."""
    from xp.model.tokenizer import train_tokenizer

    tokenizer = train_tokenizer([" ".join(WORDS)] * 3, 290)
    for name, value in options.items():
        setattr(tokenizer, name, value)
    return tokenizer


@builder
def text_classification(folder: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    save(folder, words(folder), BertForSequenceClassification(BertConfig(**BERT, **LABELS)))


@builder
def token_classification(folder: Path) -> None:
    from transformers import BertConfig, BertForTokenClassification

    save(folder, words(folder), BertForTokenClassification(BertConfig(**BERT, **TAGS)))


@builder
def masked_lm(folder: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM

    save(folder, words(folder), BertForMaskedLM(BertConfig(**BERT)))


@builder
def causal_lm(folder: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = bytes_tokenizer(chat_template=CHAT)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    save(folder, tokenizer, LlamaForCausalLM(LlamaConfig(**LLAMA, **ids)))


@builder
def no_padding_token(folder: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = bytes_tokenizer(pad_token=None)
    config = GPT2Config(n_embd=32, n_layer=1, n_head=2, n_positions=64, vocab_size=300, initializer_range=0.5,
                        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)  # fmt: skip
    save(folder, tokenizer, GPT2LMHeadModel(config))


@builder
def text_to_text(folder: Path) -> None:
    from transformers import BartConfig, BartForConditionalGeneration

    tokenizer = bytes_tokenizer()
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    config = BartConfig(vocab_size=300, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
                        decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64,
                        init_std=0.5, decoder_start_token_id=ids["bos_token_id"], forced_eos_token_id=None,
                        forced_bos_token_id=None, **ids)  # fmt: skip
    save(folder, tokenizer, BartForConditionalGeneration(config))


@builder
def question_answering(folder: Path) -> None:
    from transformers import BertConfig, BertForQuestionAnswering

    save(folder, words(folder), BertForQuestionAnswering(BertConfig(**BERT)))


@builder
def multiple_choice(folder: Path) -> None:
    from transformers import BertConfig, BertForMultipleChoice

    save(folder, words(folder), BertForMultipleChoice(BertConfig(**BERT)))


@builder
def feature_extraction(folder: Path) -> None:
    from transformers import BertConfig, BertModel

    save(folder, words(folder), BertModel(BertConfig(**BERT)))


@builder
def zero_shot_classification(folder: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    names = {0: "contradiction", 1: "neutral", 2: "entailment"}
    config = BertConfig(**BERT, id2label=names, label2id={name: at for at, name in names.items()})
    save(folder, words(folder), BertForSequenceClassification(config))


@builder
def table_question_answering(folder: Path) -> None:
    from transformers import TapasConfig, TapasForQuestionAnswering, TapasTokenizer

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[EMPTY]", *WORDS, *"0123456789",
                  *LETTERS[1:], *[f"##{each}" for each in LETTERS + "0123456789"]]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "words.txt").write_text("\n".join(vocabulary))
    config = TapasConfig(**BERT | {"vocab_size": len(vocabulary)}, type_vocab_sizes=[3, 32, 32, 2, 32, 10, 10],
                         num_aggregation_labels=4, aggregation_labels={0: "NONE", 1: "SUM", 2: "AVERAGE", 3: "COUNT"},
                         no_aggregation_label_index=0, use_answer_as_supervision=False)  # fmt: skip
    tokenizer = TapasTokenizer(str(folder / "words.txt"), model_max_length=64)
    save(folder, tokenizer, TapasForQuestionAnswering(config))


@builder
def decision(folder: Path) -> None:
    causal_lm(folder)


@builder
def text_to_audio(folder: Path) -> None:
    import json

    from transformers import VitsConfig, VitsModel, VitsTokenizer

    config = VitsConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=16,
                        flow_size=16, spectrogram_bins=9, upsample_initial_channel=16, upsample_rates=[2, 2],
                        upsample_kernel_sizes=[4, 4], resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1, 1, 1]],
                        prior_encoder_num_flows=2, prior_encoder_num_wavenet_layers=1, duration_predictor_num_flows=2,
                        depth_separable_num_layers=1, duration_predictor_filter_channels=16, wavenet_dilation_rate=1,
                        posterior_encoder_num_wavenet_layers=1, noise_scale=0.0, noise_scale_duration=0.0)  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    letters = ["<pad>", "<unk>", " ", *LETTERS]
    (folder / "letters.json").write_text(json.dumps({each: at for at, each in enumerate(letters)}))
    tokenizer = VitsTokenizer(str(folder / "letters.json"), phonemize=False, is_uroman=False)
    save(folder, tokenizer, VitsModel(config))


def wav2vec2(**options: Any) -> dict[str, Any]:
    return SMALL | {"conv_dim": (16, 16), "conv_stride": (5, 4), "conv_kernel": (10, 8), "num_feat_extract_layers": 2,
                    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "initializer_range": 0.5,
                    "feat_extract_norm": "layer", "do_stable_layer_norm": True} | options  # fmt: skip


@builder
def automatic_speech_recognition(folder: Path) -> None:
    import json

    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    folder.mkdir(parents=True, exist_ok=True)
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *LETTERS]
    (folder / "letters.json").write_text(json.dumps({each: at for at, each in enumerate(letters)}))
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    network = Wav2Vec2ForCTC(Wav2Vec2Config(**wav2vec2(vocab_size=len(letters))))
    save(folder, Wav2Vec2CTCTokenizer(str(folder / "letters.json")), extractor, network)


@builder
def whisper(folder: Path) -> None:
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    tokenizer = bytes_tokenizer()
    vocabulary = tokenizer.get_vocab()
    special = ["<|endoftext|>", "<|startoftranscript|>", *[f"<|{each}|>" for each in LANGUAGES], "<|translate|>",
               "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]  # fmt: skip
    plain = {word: at for at, word in enumerate(sorted(vocabulary, key=vocabulary.get)) if not word.startswith("<|")}
    plain = {word: at for at, word in enumerate(plain)}
    tokenizer = WhisperTokenizer(vocab=plain, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    ids = {each: tokenizer.convert_tokens_to_ids(each) for each in special}
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    config = WhisperConfig(vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1, num_mel_bins=8,
                           encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16,
                           max_source_positions=50, max_target_positions=40, pad_token_id=end, bos_token_id=end,
                           eos_token_id=end, decoder_start_token_id=start, init_std=0.5)  # fmt: skip
    network = WhisperForConditionalGeneration(config)
    network.generation_config.update(max_length=12, begin_suppress_tokens=None, suppress_tokens=None)
    save(folder, tokenizer, WhisperFeatureExtractor(feature_size=8, chunk_length=1), network)


@builder
def audio_classification(folder: Path) -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification

    network = Wav2Vec2ForSequenceClassification(Wav2Vec2Config(**wav2vec2(classifier_proj_size=16), **LABELS))
    save(folder, Wav2Vec2FeatureExtractor(return_attention_mask=True), network)


@builder
def zero_shot_audio_classification(folder: Path) -> None:
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, ClapProcessor

    audio = {"spec_size": 64, "num_mel_bins": 16, "window_size": 4, "patch_embeds_hidden_size": 16, "hidden_size": 32,
             "depths": [1, 1], "num_attention_heads": [2, 2], "num_classes": 4, "patch_embed_input_channels": 1,
             "patch_size": 2, "patch_stride": [2, 2], "projection_hidden_size": 16, "projection_dim": 16}  # fmt: skip
    config = ClapConfig(audio_config=audio, text_config=BERT | {"projection_dim": 16}, projection_dim=16)
    extractor = ClapFeatureExtractor(feature_size=16, sampling_rate=16000, hop_length=256, fft_window_size=512,
                                     max_length_s=1, frequency_max=8000, truncation="rand_trunc")  # fmt: skip
    tokenizer = words(folder, model_input_names=["input_ids", "attention_mask"])
    save(folder, ClapProcessor(extractor, tokenizer), ClapModel(config))


def picture_processor(name: str, **options: Any) -> Any:
    import transformers

    return getattr(transformers, name)(**options)


@builder
def image_classification(folder: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    save(
        folder,
        picture_processor("ViTImageProcessorPil", size=SIZE),
        ViTForImageClassification(ViTConfig(**VISION, **LABELS)),
    )


@builder
def image_feature_extraction(folder: Path) -> None:
    from transformers import ViTConfig, ViTModel

    save(folder, picture_processor("ViTImageProcessorPil", size=SIZE), ViTModel(ViTConfig(**VISION)))


SEGFORMER = {"num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1], "hidden_sizes": [16, 16],
             "patch_sizes": [3, 3], "strides": [2, 2], "num_attention_heads": [1, 1], "mlp_ratios": [1, 1],
             "decoder_hidden_size": 16}  # fmt: skip


@builder
def image_segmentation(folder: Path) -> None:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    network = SegformerForSemanticSegmentation(SegformerConfig(**SEGFORMER, **LABELS))
    save(folder, picture_processor("SegformerImageProcessorPil", size=SIZE), network)


@builder
def panoptic_segmentation(folder: Path) -> None:
    from transformers import MaskFormerConfig, MaskFormerForInstanceSegmentation

    backbone = {"model_type": "swin", "embed_dim": 8, "depths": [1] * 4, "num_heads": [1] * 4, "window_size": 2,
                "image_size": 32, "patch_size": 2, "out_features": [f"stage{at}" for at in (1, 2, 3, 4)]}  # fmt: skip
    detr = {"model_type": "detr", "d_model": 16, "decoder_layers": 1, "encoder_layers": 1, "num_queries": 5,
            "decoder_ffn_dim": 16, "encoder_ffn_dim": 16, "decoder_attention_heads": 2}  # fmt: skip
    config = MaskFormerConfig(
        backbone_config=backbone, decoder_config=detr, mask_feature_size=32, fpn_feature_size=32, **LABELS
    )
    processor = picture_processor("MaskFormerImageProcessorPil", size={"shortest_edge": 32, "longest_edge": 64})
    save(folder, processor, MaskFormerForInstanceSegmentation(config))


@builder
def universal_segmentation(folder: Path) -> None:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    backbone = SwinConfig(embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, window_size=2, image_size=32, patch_size=2,
                          out_features=[f"stage{at}" for at in (1, 2, 3, 4)])  # fmt: skip
    config = Mask2FormerConfig(backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32,
                               encoder_feedforward_dim=16, dim_feedforward=16, encoder_layers=1, decoder_layers=2,
                               num_attention_heads=2, num_queries=5, **LABELS)  # fmt: skip
    processor = picture_processor("Mask2FormerImageProcessorPil", size={"shortest_edge": 32, "longest_edge": 64})
    save(folder, processor, Mask2FormerForUniversalSegmentation(config))


@builder
def object_detection(folder: Path) -> None:
    from transformers import YolosConfig, YolosForObjectDetection

    config = YolosConfig(**VISION | {"image_size": [32, 32]}, num_detection_tokens=5, **LABELS)
    processor = picture_processor("YolosImageProcessorPil", size={"shortest_edge": 32, "longest_edge": 64})
    save(folder, processor, YolosForObjectDetection(config))


@builder
def depth_estimation(folder: Path) -> None:
    from transformers import GLPNConfig, GLPNForDepthEstimation

    config = GLPNConfig(**SEGFORMER | {"num_encoder_blocks": 4, "depths": [1] * 4, "sr_ratios": [2, 1, 1, 1],
                                       "hidden_sizes": [16] * 4, "patch_sizes": [3] * 4, "strides": [2] * 4,
                                       "num_attention_heads": [1] * 4, "mlp_ratios": [1] * 4})  # fmt: skip
    save(folder, picture_processor("GLPNImageProcessorPil"), GLPNForDepthEstimation(config))


@builder
def video_classification(folder: Path) -> None:
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    config = VideoMAEConfig(**VISION, num_frames=4, tubelet_size=2, **LABELS)
    processor = picture_processor("VideoMAEImageProcessorPil", size={"shortest_edge": 32}, crop_size=SIZE)
    save(folder, processor, VideoMAEForVideoClassification(config))


@builder
def mask_generation(folder: Path) -> None:
    from transformers import SamConfig, SamModel

    vision = SMALL | {"image_size": 32, "patch_size": 8, "output_channels": 16, "window_size": 0, "mlp_dim": 32,
                      "global_attn_indexes": [0, 1], "num_pos_feats": 8}  # fmt: skip
    prompt = {"hidden_size": 16, "image_size": 32, "patch_size": 8, "mask_input_channels": 4}
    decoder = {
        "hidden_size": 16,
        "mlp_dim": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 16,
    }
    config = SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    sizes = {"size": {"longest_edge": 32}, "pad_size": SIZE, "mask_size": {"longest_edge": 16}}
    processor = picture_processor("SamImageProcessorPil", **sizes, mask_pad_size={"height": 16, "width": 16})
    save(folder, processor, SamModel(config))


@builder
def keypoint_matching(folder: Path) -> None:
    from transformers import SuperGlueConfig, SuperGlueForKeypointMatching, SuperPointConfig

    points = SuperPointConfig(encoder_hidden_sizes=[8, 8], decoder_hidden_size=8, keypoint_decoder_dim=65,
                              descriptor_decoder_dim=16, max_keypoints=12, keypoint_threshold=0.0)  # fmt: skip
    config = SuperGlueConfig(keypoint_detector_config=points, hidden_size=16, keypoint_encoder_sizes=[8, 16],
                             gnn_layers_types=["self", "cross"], num_attention_heads=2, sinkhorn_iterations=5,
                             matching_threshold=0.0)  # fmt: skip
    save(folder, picture_processor("SuperGlueImageProcessorPil", size=SIZE), SuperGlueForKeypointMatching(config))


CLIP_TEXT = {"vocab_size": 80, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
             "num_attention_heads": 2, "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 2,
             "eos_token_id": 3}  # fmt: skip


@builder
def zero_shot_image_classification(folder: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    config = CLIPConfig(text_config=CLIP_TEXT, vision_config=VISION, projection_dim=16)
    processor = picture_processor("CLIPImageProcessorPil", size={"shortest_edge": 32}, crop_size=SIZE)
    save(folder, words(folder), processor, CLIPModel(config))


@builder
def zero_shot_object_detection(folder: Path) -> None:
    from transformers import OwlViTConfig, OwlViTForObjectDetection

    config = OwlViTConfig(
        text_config=CLIP_TEXT | {"max_position_embeddings": 16}, vision_config=VISION, projection_dim=32
    )
    save(
        folder, words(folder), picture_processor("OwlViTImageProcessorPil", size=SIZE), OwlViTForObjectDetection(config)
    )


@builder
def document_question_answering(folder: Path) -> None:
    from transformers import LayoutLMConfig, LayoutLMForQuestionAnswering

    save(folder, words(folder), LayoutLMForQuestionAnswering(LayoutLMConfig(**BERT, max_2d_position_embeddings=1024)))


@builder
def image_text_to_text(folder: Path) -> None:
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    tokenizer = bytes_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    image = tokenizer.convert_tokens_to_ids("<image>")
    vision = {"model_type": "clip_vision_model"} | VISION
    config = LlavaConfig(text_config={"model_type": "llama"} | LLAMA, vision_config=vision, image_token_index=image,
                         image_token_id=image, vision_feature_layer=-1)  # fmt: skip
    pictures = picture_processor("CLIPImageProcessorPil", size={"shortest_edge": 32}, crop_size=SIZE)
    processor = LlavaProcessor(pictures, tokenizer, patch_size=8, vision_feature_select_strategy="default",
                               num_additional_image_tokens=1, chat_template=CHAT)  # fmt: skip
    save(folder, processor, LlavaForConditionalGeneration(config))


@builder
def any_to_any(folder: Path) -> None:
    from transformers import (
        Qwen2AudioConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
        WhisperFeatureExtractor,
    )

    tokenizer = bytes_tokenizer()
    special = ["<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    audio = {"model_type": "qwen2_audio_encoder", "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2,
             "encoder_ffn_dim": 16, "num_mel_bins": 8, "max_source_positions": 50}  # fmt: skip
    config = Qwen2AudioConfig(text_config={"model_type": "qwen2"} | LLAMA, audio_config=audio,
                              audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"))  # fmt: skip
    extractor = WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    save(folder, Qwen2AudioProcessor(extractor, tokenizer), Qwen2AudioForConditionalGeneration(config))


@builder
def visual_question_answering(folder: Path) -> None:
    from transformers import ViltConfig, ViltForQuestionAnswering, ViltProcessor

    pictures = picture_processor("ViltImageProcessorPil", size={"shortest_edge": 32}, size_divisor=8)
    network = ViltForQuestionAnswering(ViltConfig(**BERT | VISION, **LABELS))
    save(folder, ViltProcessor(pictures, words(folder)), network)


@builder
def written_answers(folder: Path) -> None:
    from transformers import BlipConfig, BlipForQuestionAnswering, BlipProcessor

    text = {"encoder_hidden_size": 32, "bos_token_id": 2, "sep_token_id": 3, "pad_token_id": 0, "is_decoder": True}
    config = BlipConfig(text_config=BERT | text, vision_config=VISION, projection_dim=16)
    pictures = picture_processor("BlipImageProcessorPil", size=SIZE)
    save(folder, BlipProcessor(pictures, words(folder)), BlipForQuestionAnswering(config))


@builder
def image_to_text(folder: Path) -> None:
    from transformers import GPT2Config, VisionEncoderDecoderConfig, VisionEncoderDecoderModel, ViTConfig

    tokenizer = bytes_tokenizer()
    text = GPT2Config(n_embd=32, n_layer=1, n_head=2, n_positions=64, vocab_size=300, add_cross_attention=True,
                      initializer_range=0.5)  # fmt: skip
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**VISION), text)
    config.decoder_start_token_id, config.pad_token_id = tokenizer.bos_token_id, tokenizer.pad_token_id
    save(
        folder,
        tokenizer,
        picture_processor("ViTImageProcessorPil", size=SIZE),
        VisionEncoderDecoderModel(config=config),
    )


@builder
def image_to_image(folder: Path) -> None:
    from transformers import Swin2SRConfig, Swin2SRForImageSuperResolution

    config = Swin2SRConfig(image_size=32, embed_dim=16, depths=[1], num_heads=[2], window_size=4, upscale=2)
    save(folder, picture_processor("Swin2SRImageProcessorPil"), Swin2SRForImageSuperResolution(config))

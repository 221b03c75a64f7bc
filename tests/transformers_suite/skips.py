"""
Which of transformers' tests are skipped, and why. A test that is skipped and is not here fails.

Each table has the reason, and patterns of the names of tests, alone or after that of their class.
"""

from fnmatch import fnmatch

# What the tests themselves find not to be for this model; they fail if they run after all.
NOT_FOR_HYENADNA = {
    "there is no attention": [
        "test_attention_outputs",
        "test_attn_implementation_composite_models",
        "test_can_set_attention_dynamically*",
        "test_eager_matches_sdpa_inference_*",
        "test_sdpa_can_dispatch_*composite_models",
        "test_sliding_window_mask",
    ],
    "there are no position embeddings: positions are in the long filters": [
        "test_model_rope_*",
        "test_resize_position_vector_embeddings",
        "test_vision_axial_rope",
    ],
    "there are no experts": [
        "test_eager_matches_batched_and_grouped_inference_*",
        "test_moe_models_record_router_logits",
        "test_output_router_logits_from_config",
    ],
    "the configuration has no others inside": ["test_internal_model_config_and_subconfig_are_same"],
    "it is no encoder-decoder": ["test_encoder_decoder_loss_no_double_shift"],
    "no weights stay in float32 where the others do not: what needs float32 is computed in it": [
        "test_keep_in_fp32_modules*"
    ],
    "published weights have the names of ours, so that there is nothing to convert": [
        "test_can_load_from_already_mapped_keys",
        "test_reverse_loading_mapping",
    ],
    "hidden states are collected by the model, not by hooks: padding has to be put back": [
        "test_can_capture_specific_layers_hidden_states",
        "test_capture_outputs_decorator",
    ],
    "there is no plan for tensor parallelism by transformers": [
        "test_tied_head_has_a_tp_plan_entry",
        "test_tp_plan_matches_params",
    ],
    "DNA has no chats": ["test_chat_template_save_loading"],
    "HyenaDNA has no head for the task, or it takes no text": [
        "test_pipeline_any_to_any*",
        "test_pipeline_audio_classification*",
        "test_pipeline_automatic_speech_recognition*",
        "test_pipeline_depth_estimation*",
        "test_pipeline_document_question_answering*",
        "test_pipeline_image_*",
        "test_pipeline_mask_generation*",
        "test_pipeline_object_detection*",
        "test_pipeline_table_question_answering*",
        "test_pipeline_text_to_audio*",
        "test_pipeline_video_classification*",
        "test_pipeline_zero_shot*",
    ],
    "a causal model predicts the next token, and a bidirectional one the masked ones": [
        "HyenaDNAModelTest.test_pipeline_fill_mask*",
        "HyenaDNABidirectionalModelTest.test_causal_lm_loss_honors_shift_labels",
        "HyenaDNABidirectionalModelTest.test_pipeline_text_generation*",
    ],
}

# What the tests skip where something is missing; they run where it is there.
NEEDS = {
    "an accelerator": [
        "test_can_load_with_device_context_manager",
        "test_can_load_with_global_device_set",
        "test_cpu_offload",
        "test_disk_offload_*",
        "test_flex_attention_with_grads",
        "test_model_parallelism",
        "test_sdpa_can_compile_dynamic",
        "test_sdpa_can_dispatch_on_flash",
        "test_torch_compile_for_training",
    ],
    "flash-attn, and attention": ["test_flash_attn_*"],
    "the package kernels": ["test_kernels_can_load_without_crashing"],
    "DeepSpeed": ["test_resize_*_with_deepspeed*"],
}

# What would fail, and is right to.
SKIP = {
    "a sequence of nucleotides is one word: what aligns tokens and characters is in tests/model/test_tokenization.py": [
        "test_alignment_methods"
    ],
    "the tokens are frozen: training others is refused, see tests/model/test_tokenization.py": [
        "test_training_new_tokenizer*"
    ],
}


def reason_in(table, item):
    """The reason why a test is in a table, `None` if it is not."""
    for reason, patterns in table.items():
        if any(
            fnmatch(name, pattern) for name in (item.name, f"{item.cls.__name__}.{item.name}") for pattern in patterns
        ):
            return reason
    return None

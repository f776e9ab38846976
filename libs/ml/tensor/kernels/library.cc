// Registers the ops when the addon is loaded. Compiled for any processor: the kernels are for those with the instructions asked for here.
#include <cstdio>

#include "ops.h"

namespace tunefleet {
namespace {

bool processor_suits() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return true;
#endif
}

void register_op(const OpDefinition& op, TF_Status* status) {
  TF_OpDefinitionBuilder* definition = TF_NewOpDefinitionBuilder(op.name);
  for (const char* attribute : op.attributes) TF_OpDefinitionBuilderAddAttr(definition, attribute);
  for (const char* input : op.inputs) TF_OpDefinitionBuilderAddInput(definition, input);
  for (const char* output : op.outputs) TF_OpDefinitionBuilderAddOutput(definition, output);
  TF_OpDefinitionBuilderSetShapeInferenceFunction(definition, [](TF_ShapeInferenceContext* context, TF_Status* unknown) { TF_ShapeInferenceContextSetUnknownShape(context, unknown); });
  TF_RegisterOpDefinition(definition, status);
  if (TF_GetCode(status) != TF_OK) return;
  TF_RegisterKernelBuilder(op.name, TF_NewKernelBuilder(op.name, "CPU", op.create, op.compute, op.destroy), status);
}

/** Without the kernels the engine composes its ops of TensorFlow's, so a failure is told and no more. */
const bool registered = [] {
  if (!processor_suits()) return false;
  TF_Status* status = TF_NewStatus();
  for (const auto& ops : {linear_ops(), norm_ops(), activation_ops(), attention_ops(), loss_ops(), flash_attention_ops()}) {
    for (const OpDefinition& op : ops) {
      register_op(op, status);
      if (TF_GetCode(status) != TF_OK) std::fprintf(stderr, "tunefleet: op %s is not registered: %s\n", op.name, TF_Message(status));
    }
  }
  TF_DeleteStatus(status);
  return true;
}();

}  // namespace
}  // namespace tunefleet

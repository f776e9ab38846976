#pragma once

#include <vector>

#include "kernel.h"

namespace tunefleet {

std::vector<OpDefinition> linear_ops();
std::vector<OpDefinition> norm_ops();
std::vector<OpDefinition> activation_ops();
std::vector<OpDefinition> attention_ops();
std::vector<OpDefinition> loss_ops();
std::vector<OpDefinition> flash_attention_ops();

}  // namespace tunefleet

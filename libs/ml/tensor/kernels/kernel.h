#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "tensorflow/c/kernels.h"
#include "tensorflow/c/ops.h"

namespace tunefleet {

typedef std::vector<int64_t> Shape;

inline int64_t count_of(const Shape& shape) {
  int64_t count = 1;
  for (int64_t size : shape) count *= size;
  return count;
}

/** A tensor for the time of one call. */
class View {
 public:
  explicit View(TF_Tensor* tensor) : tensor_(tensor) {
    for (int axis = 0; axis < TF_NumDims(tensor); ++axis) shape_.push_back(TF_Dim(tensor, axis));
  }
  View(View&& other) noexcept : tensor_(other.tensor_), shape_(std::move(other.shape_)) { other.tensor_ = nullptr; }
  View(const View&) = delete;
  ~View() {
    if (tensor_) TF_DeleteTensor(tensor_);
  }

  const Shape& shape() const { return shape_; }
  int rank() const { return static_cast<int>(shape_.size()); }
  /** Negative axes count from the last. */
  int64_t dim(int axis) const { return shape_.at(axis < 0 ? axis + shape_.size() : axis); }
  int64_t count() const { return count_of(shape_); }
  TF_DataType dtype() const { return TF_TensorType(tensor_); }
  template <typename T>
  T* data() const {
    return static_cast<T*>(TF_TensorData(tensor_));
  }
  float* floats() const { return data<float>(); }

 private:
  TF_Tensor* tensor_;
  Shape shape_;
};

/** One call of a kernel. Exceptions of its body become the op's error. */
class Call {
 public:
  explicit Call(TF_OpKernelContext* context) : context_(context), status_(TF_NewStatus()) {}
  ~Call() { TF_DeleteStatus(status_); }

  int inputs() const { return TF_NumInputs(context_); }

  View input(int index) {
    TF_Tensor* tensor = nullptr;
    TF_GetInput(context_, index, &tensor, status_);
    check();
    return View(tensor);
  }

  /** Uninitialised. */
  View output(int index, const Shape& shape, TF_DataType dtype = TF_FLOAT) {
    TF_Tensor* tensor = TF_AllocateOutput(context_, index, dtype, shape.data(), static_cast<int>(shape.size()), count_of(shape) * TF_DataTypeSize(dtype), status_);
    check();
    return View(tensor);
  }

  void fail(const char* message) {
    TF_SetStatus(status_, TF_INVALID_ARGUMENT, message);
    TF_OpKernelContext_Failure(context_, status_);
  }

 private:
  void check() {
    if (TF_GetCode(status_) != TF_OK) throw std::runtime_error(TF_Message(status_));
  }

  TF_OpKernelContext* const context_;
  TF_Status* const status_;
};

inline void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

/** What an op is set to when its kernel is made. */
class Attributes {
 public:
  explicit Attributes(TF_OpKernelConstruction* construction) : construction_(construction), status_(TF_NewStatus()) {}
  ~Attributes() { TF_DeleteStatus(status_); }

  float number(const char* name) {
    float value = 0;
    TF_OpKernelConstruction_GetAttrFloat(construction_, name, &value, status_);
    return value;
  }

  int64_t integer(const char* name) {
    int64_t value = 0;
    TF_OpKernelConstruction_GetAttrInt64(construction_, name, &value, status_);
    return value;
  }

 private:
  TF_OpKernelConstruction* const construction_;
  TF_Status* const status_;
};

/** An op: its signature in TensorFlow's notation, and a kernel made from its attributes. */
struct OpDefinition {
  const char* name;
  std::vector<const char*> attributes;
  std::vector<const char*> inputs;
  std::vector<const char*> outputs;
  void* (*create)(TF_OpKernelConstruction*);
  void (*compute)(void*, TF_OpKernelContext*);
  void (*destroy)(void*);
};

/** @tparam Kernel constructed from Attributes&, called with a Call& */
template <typename Kernel>
OpDefinition define_op(const char* name, std::vector<const char*> attributes, std::vector<const char*> inputs, std::vector<const char*> outputs) {
  return {name, attributes, inputs, outputs,
          [](TF_OpKernelConstruction* construction) -> void* {
            Attributes attributes(construction);
            return new Kernel(attributes);
          },
          [](void* kernel, TF_OpKernelContext* context) {
            Call call(context);
            try {
              (*static_cast<Kernel*>(kernel))(call);
            } catch (const std::exception& error) {
              call.fail(error.what());
            }
          },
          [](void* kernel) { delete static_cast<Kernel*>(kernel); }};
}

}  // namespace tunefleet

// The one command line, behind three doors: the program, `python model.py`, `python -m
// shardwright`.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace shardwright::cli {

// Where a model comes from if not from a file. It gets one JSON object: "want", and the compile
// options that a capture needs
// ("batch_size", "seq", "precision"; those that were given), and returns a path. want = "model": a
// .pt2 file; "reference": a folder with inputs/NAME.npy and outputs/NAME.npy, what PyTorch computes
// (bf16 as its bits in uint16).
using ModelProvider = std::function<std::string(const std::string& options_json)>;

// Called along the way with the stage and the share of it that is done (0 where it is not known).
using ProgressCallback = std::function<void(const std::string& stage, double share)>;

// Runs one command; returns the exit status (base/error.h). `args` without the program's name.
// Results go to standard output, progress and errors to standard error.
int run(const std::vector<std::string>& args, const std::string& program = "shardwright",
        const ModelProvider& provider = {});

// Runs one command as a library would: returns the JSON that `--json` prints, throws Error.
std::string run_for_json(const std::vector<std::string>& args,
                         const ProgressCallback& progress = {});

}  // namespace shardwright::cli

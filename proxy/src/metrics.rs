// SPDX-License-Identifier: Apache-2.0
//! The one table of metric families and the registry behind them.
